//! `lesion-gpu recipe`: the recipes in the program. Needs no GPU.

use clap::{Args, Subcommand};

use super::say;
use crate::error::Result;
use crate::train::Recipe;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu recipe list
  lesion-gpu recipe show s1-cnn > mine.toml                 to be changed, and given to train --config
  lesion-gpu train --recipe s1-cnn --data HAM10000.zip
  lesion-gpu reproduce s1-cnn --data HAM10000.zip           under both protocols, beside the published scores")]
pub(super) struct RecipeArgs {
    #[command(subcommand)]
    command: RecipeCommand,
}

#[derive(Debug, Subcommand)]
enum RecipeCommand {
    /// Names, what each is, and what was published
    List,
    /// A recipe's file
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) fn run(args: &RecipeArgs) -> Result<()> {
    match &args.command {
        RecipeCommand::List => {
            for Recipe { name, about, .. } in Recipe::all()? {
                say(format!("{name:<16} {about}"));
                if !about.published.is_empty() {
                    let scores = about.published.iter().map(|(name, score)| format!("{name} {score}"));
                    say(format!("{:<16} published: {}", "", scores.collect::<Vec<_>>().join(", ")));
                }
            }
        }
        RecipeCommand::Show { name } => say(Recipe::find(name)?.text.trim_end()),
    }
    Ok(())
}
