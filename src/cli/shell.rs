//! `lesion-gpu completions` and `lesion-gpu man`: for the shell and the manual, from the same definitions as `--help`.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::say;
use crate::error::{Error, Kind, Result};
use crate::weights::write_atomically;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu completions bash > ~/.local/share/bash-completion/completions/lesion-gpu
  lesion-gpu completions zsh > ~/.zfunc/_lesion-gpu
  lesion-gpu completions powershell >> $PROFILE")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu man ~/.local/share/man/man1
  lesion-gpu man . && man ./lesion-gpu-train.1")]
pub(super) struct ManArgs {
    /// The folder for the pages, lesion-gpu.1 and one for each command; what is there of those names is replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut program: Command) -> Result<()> {
    let name = program.get_name().to_owned();
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

pub(super) fn man(args: &ManArgs, mut program: Command) -> Result<()> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder of the manual", folder, &e))?;
    // Commands are given their whole names, `lesion-gpu-train`.
    program.build();
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help").cloned();
    let pages: Vec<Command> = std::iter::once(program.clone()).chain(commands).collect();
    for command in pages {
        let page = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut roff = vec![];
        clap_mangen::Man::new(command)
            .render(&mut roff)
            .map_err(|e| Error::new(Kind::Internal, format!("a page of the manual could not be made: {e}")))?;
        write_atomically(&folder.join(format!("{page}.1")), &roff)?;
    }
    say(format!("manual: {}", folder.display()));
    Ok(())
}
