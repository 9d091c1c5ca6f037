//! What only the holder of the cluster's keys can do, handed to the controllers that need it. `skiff` implements it over the PKI.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A certificate to be made: who is decided, by whom and how is the signer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The request, PEM: its subject, key and alternative names are taken over.
    pub request: Vec<u8>,
    /// As in a CertificateSigningRequest: `client auth`, `digital signature`.
    pub usages: Vec<String>,
    /// Unix seconds. The signer ends it no later than its own certificate.
    pub not_before: i64,
    pub not_after: i64,
}

pub trait Signer: Send + Sync {
    /// The certificate, PEM. `Err` says why there is none.
    fn certificate(&self, order: &Order) -> Result<String, String>;
    /// A token of these claims.
    fn token(&self, claims: &Value) -> Result<String, NoToken>;
}

/// Why no token was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// There is no key, or not one that can.
    NoKey,
    /// The key of a new cluster is being made; asking again in a moment is right.
    NotYet,
}

/// The signer, where there is one. Controllers that need it do nothing without.
#[derive(Clone, Default)]
pub struct Keys(pub Option<Arc<dyn Signer>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Keys(..)" } else { "Keys(none)" })
    }
}
