//! The published weight files that go with the models.

/// Where a file is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In a repository of the Hugging Face hub, whose answer names the checksum.
    Hub {
        /// `owner/name`.
        repository: &'static str,
        /// Its path there.
        file: &'static str,
    },
    /// At a URL, under a name whose last eight hexadecimal digits before the extension begin its SHA-256, as
    /// torchvision publishes its files.
    Url(&'static str),
}

impl Source {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Hub { repository, .. } => (*repository).to_owned(),
            Self::Url(url) => format!("torchvision {}", file_name(url)),
        }
    }
}

/// The last part of a URL.
pub(super) fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Published weights of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The model's name in the registry.
    pub model: &'static str,
    /// Where they are, in the order to be tried.
    pub sources: &'static [Source],
    /// The pixel statistics they were trained with, as `--normalize` takes them.
    pub normalize: &'static str,
    /// The side of the images they were trained with.
    pub size: usize,
    /// Their licence.
    pub licence: &'static str,
}

const fn hub(repository: &'static str) -> Source {
    Source::Hub { repository, file: "model.safetensors" }
}

/// Weights that torchvision publishes; those of the ResNets are on the hub too, as timm's `tv_in1k`.
const fn torchvision(model: &'static str, sources: &'static [Source]) -> Known {
    Known { model, sources, normalize: "imagenet", size: 224, licence: "BSD-3-Clause" }
}

const KNOWN: &[Known] = &[
    torchvision(
        "resnet18",
        &[hub("timm/resnet18.tv_in1k"), Source::Url("https://download.pytorch.org/models/resnet18-f37072fd.pth")],
    ),
    torchvision(
        "resnet34",
        &[hub("timm/resnet34.tv_in1k"), Source::Url("https://download.pytorch.org/models/resnet34-b627a593.pth")],
    ),
    torchvision(
        "resnet50",
        &[hub("timm/resnet50.tv_in1k"), Source::Url("https://download.pytorch.org/models/resnet50-0676ba61.pth")],
    ),
    torchvision(
        "resnet101",
        &[hub("timm/resnet101.tv_in1k"), Source::Url("https://download.pytorch.org/models/resnet101-63fe2227.pth")],
    ),
    torchvision(
        "resnet152",
        &[hub("timm/resnet152.tv_in1k"), Source::Url("https://download.pytorch.org/models/resnet152-394f9c45.pth")],
    ),
    torchvision(
        "efficientnet-b0",
        &[Source::Url("https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth")],
    ),
    Known {
        model: "seresnet50",
        sources: &[hub("timm/seresnet50.ra2_in1k")],
        normalize: "imagenet",
        size: 224,
        licence: "Apache-2.0",
    },
    Known {
        model: "inception-resnet-v2",
        sources: &[hub("timm/inception_resnet_v2.tf_in1k")],
        normalize: "tf",
        size: 299,
        licence: "Apache-2.0",
    },
    Known {
        model: "vit-small-16",
        sources: &[hub("timm/vit_small_patch16_224.augreg_in21k_ft_in1k")],
        normalize: "tf",
        size: 224,
        licence: "Apache-2.0",
    },
];

impl Known {
    /// All of them.
    pub fn all() -> &'static [Self] {
        KNOWN
    }

    /// Those of the model called `model`.
    pub fn of(model: &str) -> Option<Self> {
        KNOWN.iter().find(|k| k.model == model).copied()
    }
}

/// The beginning of the SHA-256 that a file name ends with, such as `f37072fd` of `resnet18-f37072fd.pth`.
pub(super) fn hash_in_name(name: &str) -> Option<&str> {
    let (_, hash) = name.split_once('.').map_or(name, |(stem, _)| stem).rsplit_once('-')?;
    (hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_names_a_checksum_and_every_repository_an_owner() {
        for known in Known::all() {
            assert!(!known.sources.is_empty());
            for source in known.sources {
                match source {
                    Source::Hub { repository, .. } => assert_eq!(repository.split('/').count(), 2, "{repository}"),
                    Source::Url(url) => assert!(hash_in_name(file_name(url)).is_some(), "{url}"),
                }
            }
        }
        assert_eq!(hash_in_name("resnet18-f37072fd.pth"), Some("f37072fd"));
        assert_eq!(hash_in_name("resnet18.pth"), None);
        assert_eq!(hash_in_name("model-notahash.pth"), None);
    }
}
