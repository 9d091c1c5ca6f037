//! Providers in use, and the prefixes that say which of them wrote a value: upstream's `value.PrefixTransformer`s.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::ProviderConfig;
use crate::kms::Kms;
use crate::local::Cipher;
use crate::{Error, Result};

/// Everything that is encrypted begins so.
const ENCRYPTED: &[u8] = b"k8s:enc:";

#[derive(Clone)]
pub enum Provider {
    Identity,
    /// Keys with their prefixes.
    Local(Vec<(String, Cipher)>),
    Kms(String, Arc<Kms>),
}

/// A value as it was stored.
pub struct Opened {
    pub value: Bytes,
    /// It would be stored otherwise now.
    pub stale: bool,
}

/// Whether a stored form is some cipher's.
pub fn is_encrypted(stored: &[u8]) -> bool {
    stored.starts_with(ENCRYPTED)
}

impl Provider {
    /// `kms` finds the connection to a KMS.
    pub fn new(config: &ProviderConfig, kms: &mut dyn FnMut(&str, &str, std::time::Duration) -> Arc<Kms>) -> Self {
        match config {
            ProviderConfig::Identity => Self::Identity,
            ProviderConfig::Local { kind, keys } => {
                Self::Local(keys.iter().map(|(name, cipher)| (format!("k8s:enc:{kind}:v1:{name}:"), cipher.clone())).collect())
            }
            ProviderConfig::Kms { name, socket, timeout } => Self::Kms(format!("k8s:enc:kms:v2:{name}:"), kms(name, socket, *timeout)),
        }
    }
}

/// The stored form of a value: by the first provider.
pub async fn seal(providers: &[Provider], value: &Bytes, context: &[u8]) -> Result<Bytes> {
    match providers.first() {
        None | Some(Provider::Identity) => Ok(value.clone()),
        Some(Provider::Local(keys)) => {
            let (prefix, cipher) = keys.first().ok_or_else(|| Error::Transform("no key".to_owned()))?;
            Ok([prefix.as_bytes(), &cipher.seal(value, context)?].concat().into())
        }
        Some(Provider::Kms(prefix, kms)) => Ok([prefix.as_bytes(), &kms.seal(value, context).await?].concat().into()),
    }
}

/// The value of a stored form: by whichever provider wrote it.
pub async fn open(providers: &[Provider], stored: &Bytes, context: &[u8]) -> Result<Opened> {
    for (place, provider) in providers.iter().enumerate() {
        match provider {
            Provider::Identity if !stored.starts_with(ENCRYPTED) => return Ok(Opened { value: stored.clone(), stale: place > 0 }),
            Provider::Identity => {}
            Provider::Local(keys) => {
                let found = keys.iter().enumerate().find(|(_, (prefix, _))| stored.starts_with(prefix.as_bytes()));
                if let Some((key, (prefix, cipher))) = found {
                    let value = cipher.open(&stored[prefix.len()..], context)?.into();
                    return Ok(Opened { value, stale: place > 0 || key > 0 });
                }
            }
            Provider::Kms(prefix, kms) if stored.starts_with(prefix.as_bytes()) => {
                let (value, stale) = kms.open(&stored[prefix.len()..], context).await?;
                return Ok(Opened { value: value.into(), stale: place > 0 || stale });
            }
            Provider::Kms(..) => {}
        }
    }
    if !stored.starts_with(ENCRYPTED) && providers.is_empty() {
        return Ok(Opened { value: stored.clone(), stale: false });
    }
    let none = if providers.is_empty() { "identity transformer tried to read encrypted data" } else { "no matching prefix found" };
    Err(Error::Transform(none.to_owned()))
}
