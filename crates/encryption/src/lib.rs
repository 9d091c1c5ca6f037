//! Encryption at rest: [`Encrypted`] is a `store::Store` over another one that encrypts values as an EncryptionConfiguration
//! says, in upstream's formats, so that a datastore can be shared with or handed over to kube-apiserver. The etcd key is
//! authenticated with the value. Below every cache; the API server wraps its store in it.

pub mod config;
mod encrypted;
mod kms;
mod local;
mod provider;
mod reload;
#[cfg(test)]
mod tests;

pub use encrypted::Encrypted;
pub use provider::is_encrypted;
pub use reload::{read, watch};

#[expect(clippy::allow_attributes, reason = "generated")]
mod proto {
    tonic::include_proto!("v2");
}

/// Why a value could not be transformed, or a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Transform(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The group and resource of a key: `("", "secrets")` of `/registry/secrets/a/b`.
pub type ResourceOf = std::sync::Arc<dyn Fn(&str) -> (String, String) + Send + Sync>;
