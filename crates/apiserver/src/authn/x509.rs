//! A client certificate as an identity: the common name is the user, organizations are groups.

use std::collections::BTreeMap;

use auth::User;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// `None` where the certificate does not parse or names nobody. Whether it is trusted is judged elsewhere.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> = parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut user = User::new(name, &groups);
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(certificate)));
    user.extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
    Some(user)
}
