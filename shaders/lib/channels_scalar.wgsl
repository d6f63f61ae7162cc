// One channel a lane: any channel count.

alias V = f32;
alias VE = E;
