//! Certificates for requests of others: subject, key and alternative names are taken over byte for byte, everything else is the
//! signer's to say. Written here because a subject may name many organizations, one per group of a user.

use rcgen::{KeyPair, SigningKey as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_SUBJECT_ALT_NAME, Oid};
use x509_parser::prelude::FromDer as _;

use super::service_account::pem;

/// DER of object identifiers, without tag and length.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
const EXTENDED_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// What the signer grants.
pub struct Grant<'a> {
    /// As in a CertificateSigningRequest.
    pub usages: &'a [String],
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
}

/// The certificate in PEM. `Err`: why there is none.
pub fn for_request(ca_pem: &str, ca_key: &KeyPair, request_pem: &[u8], grant: &Grant<'_>) -> Result<String, String> {
    let der = CertificateSigningRequestDer::from_pem_slice(request_pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST")?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|e| format!("unable to parse csr: {e}"))?;
    request.verify_signature().map_err(|_| "the signature of the request is not that of its key")?;
    let info = &request.certification_request_info;
    make(ca_pem, ca_key, info.subject.as_raw(), info.subject_pki.raw, alternative_names(&request), grant)
}

/// A certificate for a subject and a key, both in DER, and alternative names as their extension holds them.
pub fn make(ca_pem: &str, ca_key: &KeyPair, subject: &[u8], key: &[u8], names: Option<&[u8]>, grant: &Grant<'_>) -> Result<String, String> {
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| "the CA does not parse")?;
    let (_, ca) = x509_parser::parse_x509_certificate(&ca).map_err(|_| "the CA does not parse")?;
    if ca_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err("the CA's key is not on P-256".to_owned());
    }
    let not_after = grant.not_after.min(ca.validity().not_after.timestamp());
    let mut extensions = usage_extensions(grant.usages)?;
    extensions.push(extension(BASIC_CONSTRAINTS, true, &sequence(&[])));
    if let Some(id) = authority_key(&ca) {
        extensions.push(extension(AUTHORITY_KEY, false, &sequence(&tlv(0x80, &id))));
    }
    if let Some(names) = names {
        extensions.push(extension(ALT_NAME, subject == [0x30, 0], names));
    }
    let algorithm = sequence(&tlv(0x06, ECDSA_WITH_SHA256));
    let mut serial = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| "no random numbers")?;
    // Positive, and never all zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let body = [
        tlv(0xa0, &tlv(0x02, &[2])),
        tlv(0x02, &serial),
        algorithm.clone(),
        ca.subject().as_raw().to_vec(),
        sequence(&[time(grant.not_before)?, time(not_after)?].concat()),
        subject.to_vec(),
        key.to_vec(),
        tlv(0xa3, &sequence(&extensions.concat())),
    ];
    let body = sequence(&body.concat());
    let signature = ca_key.sign(&body).map_err(|e| e.to_string())?;
    let certificate = sequence(&[body, algorithm, tlv(0x03, &[&[0], signature.as_slice()].concat())].concat());
    Ok(pem("CERTIFICATE", &certificate))
}

/// A name of organizations and a common name, as many of the former as there are.
pub fn subject(common_name: &str, organizations: &[&str]) -> Vec<u8> {
    let attribute = |oid: &[u8], text: &str| tlv(0x31, &sequence(&[tlv(0x06, oid), tlv(0x0c, text.as_bytes())].concat()));
    let mut names: Vec<u8> = organizations.iter().flat_map(|o| attribute(&[0x55, 0x04, 0x0a], o)).collect();
    names.extend(attribute(&[0x55, 0x04, 0x03], common_name));
    sequence(&names)
}

/// Host names and addresses as the extension's value.
pub fn names_of(sans: &[String]) -> Option<Vec<u8>> {
    let name = |san: &String| match san.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => tlv(0x87, &ip.octets()),
        Ok(std::net::IpAddr::V6(ip)) => tlv(0x87, &ip.octets()),
        Err(_) => tlv(0x82, san.as_bytes()),
    };
    (!sans.is_empty()).then(|| sequence(&sans.iter().flat_map(name).collect::<Vec<u8>>()))
}

fn usage_extensions(usages: &[String]) -> Result<Vec<Vec<u8>>, String> {
    let (mut bits, mut purposes): (u16, Vec<Vec<u8>>) = (0, Vec::new());
    for usage in usages {
        let bit = match usage.as_str() {
            "digital signature" | "signing" => 0,
            "content commitment" => 1,
            "key encipherment" => 2,
            "data encipherment" => 3,
            "key agreement" => 4,
            // A signed key never signs others.
            "cert sign" | "crl sign" => return Err(format!("invalid usage: {usage}")),
            "encipher only" => 7,
            "decipher only" => 8,
            other => {
                purposes.push(tlv(0x06, &purpose(other).ok_or_else(|| format!("unrecognized usage values: [{other:?}]"))?));
                continue;
            }
        };
        bits |= 0x8000 >> bit;
    }
    let mut out = Vec::new();
    if bits != 0 {
        let unused = bits.trailing_zeros() as u8;
        let [high, low] = bits.to_be_bytes();
        let content = if low == 0 { vec![unused - 8, high] } else { vec![unused, high, low] };
        out.push(extension(KEY_USAGE, true, &tlv(0x03, &content)));
    }
    if !purposes.is_empty() {
        out.push(extension(EXTENDED_USAGE, false, &sequence(&purposes.concat())));
    }
    Ok(out)
}

fn purpose(usage: &str) -> Option<Vec<u8>> {
    let kind = |n: u8| vec![0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, n];
    let crypto = |n: u8| vec![0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x0a, 0x03, n];
    Some(match usage {
        "any" => ANY_USAGE.to_vec(),
        "server auth" => kind(1),
        "client auth" => kind(2),
        "code signing" => kind(3),
        "email protection" | "s/mime" => kind(4),
        "ipsec end system" => kind(5),
        "ipsec tunnel" => kind(6),
        "ipsec user" => kind(7),
        "timestamping" => kind(8),
        "ocsp signing" => kind(9),
        "microsoft sgc" => crypto(3),
        "netscape sgc" => vec![0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x04, 0x01],
        _ => return None,
    })
}

fn authority_key(ca: &x509_parser::certificate::X509Certificate<'_>) -> Option<Vec<u8>> {
    ca.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// The extension's value as it was asked for.
fn alternative_names<'a>(request: &'a X509CertificationRequest<'_>) -> Option<&'a [u8]> {
    let wanted: &Oid<'_> = &OID_X509_EXT_SUBJECT_ALT_NAME;
    request.certification_request_info.attributes().iter().find_map(|a| match a.parsed_attribute() {
        x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(asked) => {
            asked.extensions.iter().find(|e| e.oid == *wanted).map(|e| e.value)
        }
        _ => None,
    })
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[tlv(0x06, oid), critical, tlv(0x04, value)].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tlv(0x30, content)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let bytes = content.len().to_be_bytes();
    let significant = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1)..];
    if content.len() < 0x80 {
        out.push(significant[0]);
    } else {
        out.push(0x80 | significant.len() as u8);
        out.extend(significant);
    }
    out.extend(content);
    out
}

/// UTCTime until 2049, GeneralizedTime from then on.
fn time(seconds: i64) -> Result<Vec<u8>, String> {
    let at = jiff::Timestamp::from_second(seconds).map_err(|e| e.to_string())?.to_zoned(jiff::tz::TimeZone::UTC);
    let short = (1950..2050).contains(&at.year());
    let format = if short { "%y%m%d%H%M%SZ" } else { "%Y%m%d%H%M%SZ" };
    Ok(tlv(if short { 0x17 } else { 0x18 }, at.strftime(format).to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn what_was_asked_for_is_certified_and_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["host.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "team");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let usages = ["client auth", "digital signature"].map(str::to_owned);
        let grant = Grant { usages: &usages, not_before: 1_700_000_000, not_after: 5_000_000_000 };
        let made = pki.ca.sign_request(request.as_bytes(), &grant).unwrap();
        let der = CertificateDer::from_pem_slice(made.as_bytes()).unwrap();
        let (rest, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(rest.is_empty());
        let ca = pki.ca.der().unwrap();
        let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert!(!certificate.is_ca(), "a request cannot make itself an authority");
        assert_eq!(certificate.validity().not_after, ca.validity().not_after, "it ends with its signer");
        assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str().unwrap(), "alice");
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
    }

    #[test]
    fn hostile_requests_get_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let usages = ["client auth".to_owned()];
        let grant = |usages| Grant { usages, not_before: 0, not_after: 1 };
        assert!(pki.ca.sign_request(pem("CERTIFICATE REQUEST", &request).as_bytes(), &grant(&usages)).is_ok());
        let signer = ["cert sign".to_owned()];
        assert!(pki.ca.sign_request(pem("CERTIFICATE REQUEST", &request).as_bytes(), &grant(&signer)).is_err());
        let last = request.len() - 1;
        request[last] ^= 1;
        assert!(pki.ca.sign_request(pem("CERTIFICATE REQUEST", &request).as_bytes(), &grant(&usages)).is_err());
        for bad in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"] {
            assert!(pki.ca.sign_request(bad.as_bytes(), &grant(&usages)).is_err(), "{bad}");
        }
    }
}
