//! Whose certificates are believed, and the client's own.

use std::sync::Arc;

use base64::Engine as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::roots;
use crate::connect::AnyCertificate;
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
    let builder = match trust {
        Trust::Any => builder.with_custom_certificate_verifier(Arc::new(AnyCertificate(provider()))),
        Trust::System => builder.with_custom_certificate_verifier(Arc::new(Roots::new(roots::of_host()?)?)),
        Trust::Bundle(pem) => builder.with_custom_certificate_verifier(Arc::new(Roots::new(certificates(pem)?)?)),
    };
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

/// Judges as Go does: also a certificate that is itself among the roots is good, whatever it says it may be used for.
#[derive(Debug)]
struct Roots {
    chain: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
        Ok(Self { chain: chain.map_err(|e| format!("unable to load root certificates: {e}"))?, roots })
    }

    /// A root as a server's own certificate: its time and name still count.
    fn is_good_root(&self, leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        use rustls::CertificateError::{BadEncoding, Expired, NotValidYet, UnknownIssuer};
        if !self.roots.iter().any(|root| root.as_ref() == leaf.as_ref()) {
            return Err(UnknownIssuer.into());
        }
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| rustls::Error::from(BadEncoding))?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds < parsed.validity().not_before.timestamp() {
            return Err(NotValidYet.into());
        }
        if seconds > parsed.validity().not_after.timestamp() {
            return Err(Expired.into());
        }
        rustls::client::verify_server_name(&rustls::server::ParsedCertificate::try_from(leaf)?, name)
    }
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now);
        match judged {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_) | rustls::CertificateError::UnknownIssuer)) => {
                self.is_good_root(leaf, name, now).map(|()| ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
