//! What is asked of the certificate of a server that this one connects to: that certain roots lead to it, or nothing. That the server
//! has the certificate's key is asked of each. Used by `webhook` and `connect`; clients' certificates are `tls`'s.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::tls::provider;

#[derive(Debug)]
pub struct Peer {
    roots: Option<Roots>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Judges as Go does: also a certificate that is itself among the roots is good, whatever it says it may be used for.
#[derive(Debug)]
struct Roots {
    chain: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// Believes any certificate whose key the server has.
    pub fn any() -> Self {
        Self { roots: None, algorithms: provider().signature_verification_algorithms }
    }

    /// Believes what these lead to.
    pub fn of(roots: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
        let chain = chain.map_err(|e| format!("unable to load root certificates: {e}"))?;
        Ok(Self { roots: Some(Roots { chain, roots }), ..Self::any() })
    }
}

impl Roots {
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

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        match roots.chain.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_) | rustls::CertificateError::UnknownIssuer)) => {
                roots.is_good_root(leaf, name, now).map(|()| ServerCertVerified::assertion())
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
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
