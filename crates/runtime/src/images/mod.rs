//! Images: what is stored, how it got there. [`store::Images`] is the API; the CRI image service and `skiff image` use it.

mod build;
mod config;
mod load;
mod pull;
mod reference;
mod resolve;
mod store;
pub(crate) mod stream;
pub(crate) mod unpack;

pub use build::Program;
pub use config::ImageConfig;
pub use load::load;
pub use pull::Credentials;
pub use reference::normalize;
pub use store::{Image, Images};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("couldn't parse image name {name:?}: {reason}")]
    Reference { name: String, reason: String },
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The image is damaged or hostile; nothing of it was kept.
    #[error("image is not sound: {0}")]
    Unsound(String),
    #[error("image is too large: {0}")]
    TooLarge(String),
    #[error("pull image {image:?}: {reason}")]
    Pull { image: String, reason: String },
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
}

impl ImageError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        |source| {
            // The limits of a stream travel through `Read` as errors of their own kind.
            if source.kind() == std::io::ErrorKind::FileTooLarge {
                return Self::TooLarge(source.to_string());
            }
            Self::Io { doing, source }
        }
    }

    pub(crate) fn unsound(reason: impl std::fmt::Display) -> Self {
        Self::Unsound(reason.to_string())
    }
}
