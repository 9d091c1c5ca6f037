//! A certificate authority and the certificates it issues.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use super::certificate::{self, Grant};
use super::{CA_DAYS, LEAF_DAYS, RENEW_DAYS, files};
use crate::error::{Error, Result};

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    /// Serving; the kubelet's and the server's. Also usable as a client, as kubeadm's are not; harmless.
    Server,
}

pub struct Authority {
    pem: String,
    key: KeyPair,
}

impl Authority {
    pub(super) fn open(dir: &Path, stem: &str, cn: &str) -> Result<Self> {
        let (cert_path, key_path) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
        if let (Some(pem), Some(key)) = (files::read(&cert_path)?, files::read(&key_path)?) {
            let key = KeyPair::from_pem(&key).map_err(|e| Error::Damaged { path: key_path, why: e.to_string() })?;
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Damaged { path: cert_path, why: format!("{e:?}") })?;
            return Ok(Self { pem, key });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(cn, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        files::write(&key_path, &key.serialize_pem())?;
        files::write(&cert_path, &pem)?;
        Ok(Self { pem, key })
    }

    /// An authority of somebody else's making.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let missing = |path: &Path| Error::Damaged { path: path.to_owned(), why: "it is missing".to_owned() };
        let pem = files::read(certificate)?.ok_or_else(|| missing(certificate))?;
        let text = files::read(key)?.ok_or_else(|| missing(key))?;
        let key = KeyPair::from_pem(&text).map_err(|e| Error::Damaged { path: key.to_owned(), why: e.to_string() })?;
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| Error::Damaged { path: certificate.to_owned(), why: format!("{e:?}") })?;
        Ok(Self { pem, key })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn der(&self) -> Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|e| Error::Tls(format!("the CA does not parse: {e:?}")))
    }

    pub fn issue(&self, cn: &str, orgs: &[&str], sans: &[String], usage: Usage) -> Result<Identity> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let own = match usage {
            Usage::Client => &["client auth"][..],
            Usage::Server => &["server auth", "client auth"],
        };
        let usages: Vec<String> = ["digital signature", "key encipherment"].iter().chain(own).map(|u| (*u).to_owned()).collect();
        if let Some(bad) = sans.iter().find(|s| !s.is_ascii()) {
            return Err(Error::Tls(format!("{bad} is no name for a certificate")));
        }
        let now = jiff::Timestamp::now().as_second();
        // From yesterday: clocks of other machines may be behind.
        let grant = Grant { usages: &usages, not_before: now - 86400, not_after: now + LEAF_DAYS * 86400 };
        let (subject, names) = (certificate::subject(cn, orgs), certificate::names_of(sans));
        let public = key.subject_public_key_info();
        let cert_pem = certificate::make(&self.pem, &self.key, &subject, &public, names.as_deref(), &grant).map_err(Error::Tls)?;
        Ok(Identity { cert_pem, key_pem: key.serialize_pem() })
    }

    /// A certificate for somebody else's request, PEM.
    pub fn sign_request(&self, request_pem: &[u8], grant: &Grant<'_>) -> std::result::Result<String, String> {
        certificate::for_request(&self.pem, &self.key, request_pem, grant)
    }

    /// Issues once and keeps the result in files, until it nears its end or should say something else.
    pub(super) fn keep(&self, dir: &Path, stem: &str, cn: &str, orgs: &[&str], sans: &[String], usage: Usage) -> Result<Identity> {
        let (cert_path, key_path) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
        if let (Some(cert_pem), Some(key_pem)) = (files::read(&cert_path)?, files::read(&key_path)?)
            && self.still_good(&cert_pem, cn, sans)
            && KeyPair::from_pem(&key_pem).is_ok()
        {
            return Ok(Identity { cert_pem, key_pem });
        }
        let identity = self.issue(cn, orgs, sans, usage)?;
        files::write(&key_path, &identity.key_pem)?;
        files::write(&cert_path, &identity.cert_pem)?;
        Ok(identity)
    }

    fn still_good(&self, cert_pem: &str, cn: &str, sans: &[String]) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
        let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else { return false };
        let Ok(ca_der) = self.der() else { return false };
        let Ok((_, ca)) = x509_parser::parse_x509_certificate(&ca_der) else { return false };
        let left = cert.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
        let same_name = cert.subject().iter_common_name().any(|n| n.as_str() == Ok(cn));
        left > RENEW_DAYS * 86400 && same_name && cert.verify_signature(Some(ca.public_key())).is_ok() && has_names(&cert, sans)
    }
}

fn has_names(cert: &x509_parser::certificate::X509Certificate<'_>, sans: &[String]) -> bool {
    let have: Vec<String> = cert
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(text_of).collect())
        .unwrap_or_default();
    sans.iter().all(|s| have.contains(s))
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}

fn params(cn: &str, days: i64) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, cn);
    let day = |offset: i64| {
        let at = jiff::Timestamp::now().as_second() + offset * 86400;
        let date = jiff::Timestamp::from_second(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // From yesterday: clocks of other machines may be behind.
    let mut params = CertificateParams::default();
    params.not_before = day(-1);
    params.not_after = day(days);
    params.distinguished_name = name;
    params
}

impl Identity {
    /// A certificate that nobody but its holder vouches for, for serving under these names.
    pub fn self_signed(name: &str, sans: &[String]) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(name, LEAF_DAYS);
        params.subject_alt_names = CertificateParams::new(sans.to_vec())?.subject_alt_names;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Self { cert_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
    }

    /// The chain and key as rustls takes them.
    pub fn to_rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect();
        let chain = chain.map_err(|e| Error::Tls(format!("a certificate does not parse: {e:?}")))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        Ok((chain, key.map_err(|e| Error::Tls(format!("a private key does not parse: {e:?}")))?))
    }
}
