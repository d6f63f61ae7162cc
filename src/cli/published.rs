//! Published weights on the command line: found on this machine or fetched, with progress.

use std::path::PathBuf;

use super::progress::Progress;
use super::{bytes, interrupted};
use crate::data::Cache;
use crate::error::{Error, Kind, Result};
use crate::hub::{self, Known, Settings};
use crate::train::Interrupt;

/// The published weights of a model; of one that has another as its backbone those of the backbone.
///
/// # Errors
/// [`Kind::Usage`] for a model without any; [`Kind::Io`] if they cannot be fetched, with what to do by hand.
pub(super) fn known(model: &str) -> Result<Known> {
    Known::of(backbone_of(model).unwrap_or(model)).ok_or_else(|| {
        Error::new(Kind::Usage, format!("no published weights of {model} are known"))
            .next(format!("name a file with --weights, or choose one of: {}", names()))
    })
}

/// The model whose weights are a part of this one's: a U-Net's encoder, or what a squeeze-and-excitation block sits on.
pub(super) fn backbone_of(model: &str) -> Option<&str> {
    model.strip_prefix("unet-").filter(|encoder| encoder.starts_with("resnet")).or(match model {
        "resnet50-se" => Some("resnet50"),
        _ => None,
    })
}

/// The models that have published weights.
pub(super) fn names() -> String {
    Known::all().iter().map(|known| known.model).collect::<Vec<_>>().join(", ")
}

/// A file with published weights, kept in the folder `cache` (by default lesion-gpu's in the user's cache folder). Ctrl-C
/// leaves what has been fetched, and the next call continues it.
pub(super) fn fetch(
    known: &Known,
    cache: Option<PathBuf>,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let folder = cache.or_else(|| Cache::Default.dir()).ok_or_else(|| {
        Error::new(Kind::Io, "there is no cache folder to keep weights in").next("name one with --cache DIR")
    })?;
    let settings = Settings::from_environment(folder.join("hub"), &|name| std::env::var(name).ok())?;
    let title = format!("weights of {}", known.model);
    let path = settings.weights(known, &mut |event| {
        match event {
            hub::Progress::Fetching(name, done, total) => {
                let of = total.map_or(String::new(), |total| format!(" of {}", bytes(total)));
                let (at, all) = (done as usize >> 10, total.unwrap_or(done) as usize >> 10);
                progress.show(&title, at, all, || format!("KiB, {}{of} from {name}", bytes(done)));
            }
            hub::Progress::Wrong(path) => {
                eprintln!("note: {} is not the published file (another SHA-256) and is not used", path.display());
            }
            hub::Progress::Checking(_) => {}
        }
        interrupted(interrupt)
    })?;
    progress.clear();
    Ok(path)
}
