//! A client certificate as an identity: the common name is the user, organizations are groups.

use std::collections::BTreeMap;

use auth::User;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};

/// Upstream's attribute for a user's uid.
const UID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// `None` where the certificate does not parse or names nobody. Whether it is trusted is judged elsewhere.
pub fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().last()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> = parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut user = User::new(name, &groups);
    let mut uids = parsed.subject().iter_by_oid(&UID).map(|a| a.as_str().ok().filter(|u| !u.is_empty()));
    match (uids.next(), uids.next()) {
        (None, _) => {}
        (Some(Some(uid)), None) => user.uid = uid.to_owned(),
        // More than one, or one that cannot be read: nobody can say who this is.
        _ => return None,
    }
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(certificate)));
    user.extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
    Some(user)
}

/// The common name alone.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    parsed.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
}
