//! A request for a certificate, from the side of who asks: a node's kubelet. What an authority does with one is in `authority`
//! and `certificate`.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha512_256};

use crate::error::Result;

/// A key, and what a certificate for it is to say.
pub struct Request {
    key: KeyPair,
    /// PEM.
    pub pem: String,
    subject: String,
}

impl Request {
    /// For the key given in PEM, or a new one.
    pub fn new(key_pem: Option<&str>, cn: &str, organization: &str, sans: &[String]) -> Result<Self> {
        let key = match key_pem {
            Some(pem) => KeyPair::from_pem(pem)?,
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        };
        let mut params = CertificateParams::new(sans.to_vec())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, organization);
        name.push(DnType::CommonName, cn);
        params.distinguished_name = name;
        let pem = params.serialize_request(&key)?.pem()?;
        Ok(Self { key, pem, subject: format!("CN={cn},O={organization}") })
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The same for the same key, subject and usages: who asks again after a restart finds the first request.
    pub fn digest(&self, usages: &[&str]) -> [u8; 32] {
        let mut hash = Sha512_256::new();
        hash.update(self.key.subject_public_key_info());
        hash.update(&self.subject);
        for usage in usages {
            hash.update([0]);
            hash.update(usage);
        }
        hash.finalize().into()
    }

    /// Whether a certificate, PEM, is for this request's key.
    pub fn is_answered_by(&self, certificate: &str) -> bool {
        let own = self.key.subject_public_key_info();
        first(certificate, |certificate| certificate.public_key().raw == own).unwrap_or(false)
    }
}

/// From when and to when the first certificate of a PEM text is good, in Unix seconds.
pub fn validity(pem: &str) -> Option<(i64, i64)> {
    first(pem, |certificate| (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp()))
}

fn first<T>(pem: &str, read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(read(&certificate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Grant};

    #[test]
    fn a_request_knows_its_answer_and_is_the_same_for_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), "ca", "ca").unwrap();
        let asked = Request::new(None, "system:node:n", "system:nodes", &["n".to_owned()]).unwrap();
        let usages = ["client auth".to_owned()];
        let grant = Grant { usages: &usages, not_before: 1000, not_after: 5000 };
        let issued = authority.sign_request(asked.pem.as_bytes(), &grant).unwrap();
        assert_eq!(validity(&issued), Some((1000, 5000)));
        assert!(asked.is_answered_by(&issued));

        let again = Request::new(Some(&asked.key_pem()), "system:node:n", "system:nodes", &[]).unwrap();
        assert!(again.is_answered_by(&issued));
        assert_eq!(again.digest(&["client auth"]), asked.digest(&["client auth"]));
        assert_ne!(again.digest(&["server auth"]), asked.digest(&["client auth"]));

        let other = Request::new(None, "system:node:n", "system:nodes", &[]).unwrap();
        assert!(!other.is_answered_by(&issued) && other.digest(&["client auth"]) != asked.digest(&["client auth"]));
        assert!(!other.is_answered_by("no certificate") && validity("").is_none());
    }
}
