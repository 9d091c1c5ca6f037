//! The cluster's own PKI in a directory, laid out as kubeadm does: CA, front-proxy CA, the server's certificates, the
//! ServiceAccount key. Made when missing, renewed before expiry, mode 0600. The binary issues the components' identities here.

mod authority;
mod certificate;
mod files;
pub mod jose;
mod kubeconfig;
mod request;
pub mod service_account;

use std::path::{Path, PathBuf};

pub use authority::{Authority, Identity, Usage};
pub use certificate::Grant;
pub use kubeconfig::kubeconfig;
pub use request::{Request, validity};
pub use service_account::{Missing, ServiceAccountKeys};
use tokio::sync::SetOnce;

use self::service_account::Found;
use crate::error::Result;

/// Leaf certificates live a year and are made anew when less than a third of it is left.
const LEAF_DAYS: i64 = 365;
const RENEW_DAYS: i64 = 120;
const CA_DAYS: i64 = 3650;

pub struct Pki {
    dir: PathBuf,
    pub ca: Authority,
    pub front_proxy_ca: Authority,
    service_account: SetOnce<ServiceAccountKeys>,
}

impl Pki {
    /// Loads the PKI of a directory, making what is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        let pki = Self::open_authorities(dir)?;
        if let Some(missing) = pki.open_keys(None, &[])? {
            pki.keep_keys(missing.make()?);
        }
        Ok(pki)
    }

    /// As [`Pki::open`], but for the keys of ServiceAccounts: [`Pki::open_keys`] must follow.
    pub fn open_authorities(dir: &Path) -> Result<Self> {
        files::make_dir(dir)?;
        Ok(Self {
            ca: Authority::open(dir, "ca", "kubernetes")?,
            front_proxy_ca: Authority::open(dir, "front-proxy-ca", "front-proxy-ca")?,
            service_account: SetOnce::new(),
            dir: dir.to_owned(),
        })
    }

    /// The keys for ServiceAccount tokens: the directory's own, or one to sign with and more to check with. What is returned
    /// has yet to be made, and goes to [`Pki::keep_keys`].
    pub fn open_keys(&self, signing: Option<&Path>, verifying: &[PathBuf]) -> Result<Option<Missing>> {
        let keys = match signing {
            Some(signing) => ServiceAccountKeys::load(signing, verifying)?,
            None => match ServiceAccountKeys::find(&self.dir, verifying)? {
                Found::Keys(keys) => keys,
                Found::Missing(missing) => return Ok(Some(missing)),
            },
        };
        self.keep_keys(keys);
        Ok(None)
    }

    pub fn keep_keys(&self, keys: ServiceAccountKeys) {
        if self.service_account.set(keys).is_err() {
            tracing::error!("the keys of ServiceAccounts were opened twice");
        }
    }

    /// The keys, which for a moment of a cluster's first start are still being made.
    pub async fn service_account(&self) -> &ServiceAccountKeys {
        self.service_account.wait().await
    }

    /// The keys, if they are there.
    pub fn made_service_account(&self) -> Option<&ServiceAccountKeys> {
        self.service_account.get()
    }

    /// A client certificate for `cn` in the groups `orgs`; not written anywhere.
    #[cfg(test)]
    pub fn issue_client(&self, cn: &str, orgs: &[&str]) -> Result<Identity> {
        self.ca.issue(cn, orgs, &[], Usage::Client)
    }

    /// A client certificate kept as `<stem>.crt` and `<stem>.key` in the directory, renewed when it nears its end.
    pub fn client(&self, stem: &str, cn: &str, orgs: &[&str]) -> Result<Identity> {
        self.ca.keep(&self.dir, stem, cn, orgs, &[], Usage::Client)
    }

    /// As [`Pki::client`], signed by the front-proxy CA.
    pub fn front_proxy_client(&self) -> Result<Identity> {
        self.front_proxy_ca.keep(&self.dir, "front-proxy-client", "front-proxy-client", &[], &[], Usage::Client)
    }

    /// A serving certificate kept in the directory; made anew also when the names differ.
    pub fn serving(&self, stem: &str, cn: &str, orgs: &[&str], sans: &[String]) -> Result<Identity> {
        self.ca.keep(&self.dir, stem, cn, orgs, sans, Usage::Server)
    }

    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The common name a certificate signing request in PEM asks for.
pub fn request_common_name(pem: &[u8]) -> Option<String> {
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::prelude::FromDer as _;
    let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).ok()?;
    let name = request.certification_request_info.subject.iter_common_name().last();
    Some(name.and_then(|n| n.as_str().ok()).unwrap_or("").to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_pki_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let sans = ["localhost".to_owned(), "10.96.0.1".to_owned()];
        let serving = first.serving("apiserver", "kube-apiserver", &[], &sans).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(serving.cert_pem, again.serving("apiserver", "kube-apiserver", &[], &sans).unwrap().cert_pem);
        let more = ["localhost".to_owned(), "10.1.2.3".to_owned()];
        assert_ne!(serving.cert_pem, again.serving("apiserver", "kube-apiserver", &[], &more).unwrap().cert_pem, "other names");
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        }
    }

    #[test]
    fn a_client_is_in_all_its_groups() {
        let dir = tempfile::tempdir().unwrap();
        let made = Pki::open(dir.path()).unwrap().issue_client("alice", &["a", "b", "c"]).unwrap();
        let (chain, _) = made.to_rustls().unwrap();
        let user = crate::authn::x509::user_of(&chain[0]).unwrap();
        assert_eq!((user.name.as_str(), user.groups.join(" ")), ("alice", "a b c system:authenticated".to_owned()));
    }

    #[test]
    fn a_damaged_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(Pki::open(dir.path()).unwrap());
        std::fs::write(dir.path().join("ca.crt"), "nonsense").unwrap();
        let text = Pki::open(dir.path()).err().unwrap().to_string();
        assert!(text.contains("ca.crt") && text.contains("remove it"), "{text}");
    }
}
