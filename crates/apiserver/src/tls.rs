//! The server's side of TLS: 1.2 and 1.3, HTTP/2 by ALPN. A client certificate is taken without judgement in the handshake;
//! `authn` judges it, so that a bad one is a 401 and not a broken connection, as upstream does.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::error::{Error, Result};
use crate::pki::Identity;

/// Checks a client certificate against a CA, now.
pub type Verifier = Arc<dyn ClientCertVerifier>;

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Trusts what one of these signed.
pub fn verifier(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Verifier> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|e| Error::Tls(e.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated();
    builder.build().map_err(|e| Error::Tls(e.to_string()))
}

/// Which versions and ciphers the server takes.
pub struct Offer {
    provider: CryptoProvider,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl Offer {
    /// By Go's names. No suite named: all. Those of TLS 1.3 cannot be chosen, as in Go.
    pub fn new(suites: &[String], min_version: &str) -> Result<Self> {
        let versions = match min_version {
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => vec![&TLS12, &TLS13],
            "VersionTLS13" => vec![&TLS13],
            other => return Err(Error::Config(format!("unknown tls version {other:?}"))),
        };
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(unknown) = suites.iter().find(|s| !provider.cipher_suites.iter().any(|known| go_name(*known) == plain(s))) {
            return Err(Error::Config(format!("Cipher suite {unknown} not supported or doesn't exist")));
        }
        if !suites.is_empty() {
            let chosen = |suite: &SupportedCipherSuite| suites.iter().any(|s| plain(s) == go_name(*suite));
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen(suite));
        }
        Ok(Self { provider, versions })
    }
}

fn go_name(suite: SupportedCipherSuite) -> String {
    let name = suite.suite().as_str().unwrap_or_default();
    name.strip_prefix("TLS13_").map_or_else(|| name.to_owned(), |rest| format!("TLS_{rest}"))
}

/// Go knows two suites by a shorter name too.
fn plain(name: &str) -> String {
    if name.ends_with("_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.to_owned() }
}

/// As [`server_config_of`] with everything on offer.
#[cfg(test)]
pub fn server_config(identity: &Identity, verifier: Verifier) -> Result<ServerConfig> {
    server_config_of(&Offer::new(&[], "")?, identity, verifier)
}

pub fn server_config_of(offer: &Offer, identity: &Identity, verifier: Verifier) -> Result<ServerConfig> {
    let (chain, key) = identity.to_rustls()?;
    let failed = |e: rustls::Error| Error::Tls(e.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(offer.provider.clone()))
        .with_protocol_versions(&offer.versions)
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(Lenient(verifier)))
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts any certificate whose key the client has.
#[derive(Debug)]
struct Lenient(Verifier);

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_and_versions_have_gos_names() {
        let of = |suites: &[&str], version: &str| Offer::new(&suites.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), version);
        let all = of(&[], "").unwrap();
        assert_eq!((all.versions.len(), of(&[], "VersionTLS13").unwrap().versions.len()), (2, 1));
        let two = of(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"], "VersionTLS12").unwrap();
        let names: Vec<String> = two.provider.cipher_suites.iter().map(|s| go_name(*s)).filter(|n| n.contains("ECDHE")).collect();
        assert_eq!(names, ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]);
        assert!(two.provider.cipher_suites.len() > 1, "those of TLS 1.3 stay");
        assert!(of(&["TLS_RSA_WITH_RC4_128_SHA"], "").is_err() && of(&[], "VersionTLS14").is_err());
    }
}
