//! Whose certificates are believed, and the client's own.

use std::sync::Arc;

use base64::Engine as _;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::roots;
use crate::peer::Peer;
use crate::tls::provider;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Certificates in PEM.
    Bundle(Arc<[u8]>),
    /// What the host believes.
    System,
    /// Any: where the configuration says `insecure`.
    Any,
}

/// A client certificate with its key, both PEM. Its debug form keeps the key to itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub cert_pem: Arc<[u8]>,
    pub key_pem: Arc<[u8]>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Trust {
    /// PEM, checked.
    pub fn bundle(pem: &[u8]) -> Result<Self, String> {
        certificates(pem)?;
        Ok(Self::Bundle(pem.into()))
    }

    /// The `caBundle` of an object: base64 of PEM.
    pub fn bundle_base64(text: &str) -> Result<Self, String> {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim());
        Self::bundle(&decoded.map_err(|e| format!("unable to load root certificates: {e}"))?)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
    if all.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    Ok(all)
}

/// The client's side of TLS for what speaks HTTP/1.1.
pub fn client_config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, String> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?.dangerous();
    let peer = match trust {
        Trust::Any => Peer::any(),
        Trust::System => Peer::of(roots::of_host()?)?,
        Trust::Bundle(pem) => Peer::of(certificates(pem)?)?,
    };
    let builder = builder.with_custom_certificate_verifier(Arc::new(peer));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(&identity.cert_pem).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem);
            let (chain, key) = (chain.map_err(|e| format!("tls: {e:?}"))?, key.map_err(|e| format!("tls: {e:?}"))?);
            builder.with_client_auth_cert(chain, key).map_err(|e| format!("tls: {e}"))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
