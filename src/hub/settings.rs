//! Where the hub is, who asks, and which folders may hold a file already: what the environment says, in the variables that
//! Hugging Face's and PyTorch's own tools read.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// How published files are looked up and fetched.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The variable that forbids to ask the network, if one does (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`).
    pub offline: Option<&'static str>,
    /// Who asks (`HF_TOKEN`, or the file that `hf auth login` leaves). Sent to the endpoint alone.
    pub token: Option<String>,
    /// The folder of files that Hugging Face's tools have fetched (`HF_HUB_CACHE`, `HF_HOME`).
    pub hub_cache: Option<PathBuf>,
    /// The folder of files that PyTorch has fetched (`TORCH_HOME`).
    pub torch_cache: Option<PathBuf>,
    /// Our own folder of fetched files.
    pub folder: PathBuf,
    /// How long to wait before each further attempt; after as many failures without any progress we give up.
    pub pauses: Vec<Duration>,
    /// How long a server may be silent.
    pub silence: Duration,
}

/// What counts as yes in Hugging Face's variables.
fn is_true(text: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&text.to_uppercase().as_str())
}

/// A path with the user's home in place of a `~` at its beginning, as a shell has it.
fn expanded(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with(['/', MAIN_SEPARATOR]) => home.join(&rest[1..]),
        _ => text.into(),
    }
}

impl Settings {
    /// The settings that the environment asks for; `variable` reads it. `folder` is where fetched files go.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an endpoint that is no URL.
    pub fn from_environment(folder: PathBuf, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let user_home = set("HOME").map(PathBuf::from).or_else(dirs::home_dir);
        let path = |name: &str| set(name).map(|text| expanded(&text, user_home.as_deref()));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::new(Kind::Usage, "the hub's address must begin with https:// or http://")
                .at(format!("HF_ENDPOINT={endpoint}"))
                .next("correct the environment variable, or unset it"));
        }
        let user_cache = path("XDG_CACHE_HOME").or_else(|| user_home.as_ref().map(|h| h.join(".cache")));
        let home = path("HF_HOME").or_else(|| user_cache.as_ref().map(|c| c.join("huggingface")));
        let hub_cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|h| h.join("token")));
        let implicit = !set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|text| is_true(&text));
        let stored = || token_file.and_then(|file| std::fs::read_to_string(file).ok());
        let token = set("HF_TOKEN").or_else(stored).map(|t| t.trim().to_owned());
        let token = token.filter(|t| implicit && !t.is_empty());
        let torch = path("TORCH_HOME").or_else(|| user_cache.as_ref().map(|c| c.join("torch")));
        Ok(Self {
            endpoint,
            // The first that is set decides, whatever it says.
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .into_iter()
                .find_map(|name| set(name).map(|text| (name, text)))
                .and_then(|(name, text)| is_true(&text).then_some(name)),
            token,
            hub_cache: hub_cache.or_else(|| home.map(|h| h.join("hub"))),
            torch_cache: torch.map(|t| t.join("hub").join("checkpoints")),
            folder,
            pauses: [1, 2, 4].map(Duration::from_secs).to_vec(),
            silence: Duration::from_secs(30),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Settings::from_environment("own".into(), &find)
    }

    #[test]
    fn the_usual_variables_are_honoured() {
        let plain = settings(&[("HOME", "/home/x")]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.hub_cache, Some("/home/x/.cache/huggingface/hub".into()));
        assert_eq!(plain.torch_cache, Some("/home/x/.cache/torch/hub/checkpoints".into()));
        assert!(plain.offline.is_none() && plain.token.is_none());
        let other = settings(&[
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("HF_HOME", "/h"),
            ("TORCH_HOME", "/t"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "yes"),
        ])
        .unwrap();
        assert_eq!((other.endpoint.as_str(), other.offline), ("https://mirror.example", Some("HF_HUB_OFFLINE")));
        assert_eq!(other.hub_cache, Some("/h/hub".into()));
        assert_eq!(other.torch_cache, Some("/t/hub/checkpoints".into()));
        assert_eq!(other.token.as_deref(), Some("secret"));
        let cache = settings(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c"), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert_eq!((cache.hub_cache, cache.offline), (Some("/c".into()), None));
        assert_eq!(settings(&[("HF_ENDPOINT", "mirror")]).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_tilde_is_the_users_home() {
        let variables = [("HOME", "/home/x"), ("HF_HOME", "~/h"), ("TORCH_HOME", "~"), ("HF_HUB_CACHE", "~other/c")];
        let settings = settings(&variables).unwrap();
        assert_eq!(settings.torch_cache, Some("/home/x/hub/checkpoints".into()));
        // Of other users nothing is known.
        assert_eq!(settings.hub_cache, Some("~other/c".into()));
        let variables = [("HOME", "/home/x"), ("HF_HOME", "~/h")];
        assert_eq!(super::tests::settings(&variables).unwrap().hub_cache, Some("/home/x/h/hub".into()));
    }

    #[test]
    fn the_first_variable_decides_whether_the_network_is_asked() {
        let offline = |variables: &[(&str, &str)]| settings(variables).unwrap().offline;
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]), None);
        assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", "1")]), Some("TRANSFORMERS_OFFLINE"));
        assert_eq!(offline(&[("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "0")]), Some("HF_HUB_OFFLINE"));
    }

    #[test]
    fn the_token_that_a_login_left_is_used_unless_forbidden() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "stored\n").unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", path)]).unwrap().token.as_deref(), Some("stored"));
        assert_eq!(settings(&[("HF_HOME", path), ("HF_TOKEN", "mine")]).unwrap().token.as_deref(), Some("mine"));
        let never = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(settings(&[("HF_HOME", path), never]).unwrap().token, None);
        assert_eq!(settings(&[("HF_HOME", path), ("HF_TOKEN", "mine"), never]).unwrap().token, None);
    }
}
