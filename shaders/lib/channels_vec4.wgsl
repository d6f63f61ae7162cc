// Four channels a lane: the channel count is a multiple of four, and counted in fours.

alias V = vec4f;
alias VE = E4;
