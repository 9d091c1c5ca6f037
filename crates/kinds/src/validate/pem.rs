//! Certificate requests and certificates in PEM, read as far as rules ask: whether a request is signed with the key it holds,
//! and whether certificates are certificates. What signers make of them is elsewhere. Called by `strategies::certificates`.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinery::field::go_quote;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"\n-----END ";
const DASHES: &[u8] = b"-----";
/// So many beginnings without a block are looked at.
const ATTEMPTS_MAX: usize = 100;

#[derive(Debug, PartialEq, Eq)]
struct Block {
    ty: String,
    headers: bool,
    der: Vec<u8>,
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// The first line without the blanks at its end, and what follows it.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|b| *b == b'\n');
    let (own, rest) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 1..]));
    (own.trim_ascii_end(), rest)
}

/// The next block, as Go's `pem.Decode` finds it, and what follows it.
fn next_block(data: &[u8]) -> Option<(Block, &[u8])> {
    let mut rest = data;
    for _ in 0..ATTEMPTS_MAX {
        let at = if rest.starts_with(BEGIN) { 0 } else { find(rest, b"\n-----BEGIN ")? + 1 };
        let (title, body) = line(&rest[at + BEGIN.len()..]);
        rest = body;
        let Some(ty) = title.strip_suffix(DASHES) else { continue };
        let (mut body, mut headers) = (body, false);
        while let (own, next) = line(body)
            && own.contains(&b':')
        {
            (body, headers) = (next, true);
        }
        if let Some((der, after)) = content(body, ty) {
            return Some((Block { ty: String::from_utf8_lossy(ty).into_owned(), headers, der }, after));
        }
    }
    None
}

/// Up to the end that belongs to the type.
fn content<'a>(body: &'a [u8], ty: &[u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let (end, tail) = if body.starts_with(&END[1..]) {
        (0, &body[END.len() - 1..])
    } else {
        let end = find(body, END)?;
        (end, &body[end + END.len()..])
    };
    let (after, rest) = line(tail.strip_prefix(ty)?.strip_prefix(DASHES)?);
    if !after.is_empty() {
        return None;
    }
    let packed: Vec<u8> = body[..end].iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    Some((STANDARD.decode(packed).ok()?, rest))
}

/// What is wrong with a request (`validateCSR`).
pub fn request_problem(pem: &[u8]) -> Option<String> {
    let Some((block, _)) = next_block(pem).filter(|(block, _)| block.ty == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    match X509CertificationRequest::from_der(&block.der) {
        Err(_) => Some(asn1_problem(&block.der)),
        Ok((rest, _)) if !rest.is_empty() => Some("asn1: syntax error: trailing data".to_owned()),
        Ok((_, request)) => signature_problem(&request),
    }
}

/// Go tells of the first thing in the way; most often the whole is cut off.
fn asn1_problem(der: &[u8]) -> String {
    let text = if der.is_empty() { "sequence truncated" } else { "data truncated" };
    format!("asn1: syntax error: {text}")
}

fn signature_problem(request: &X509CertificationRequest<'_>) -> Option<String> {
    let key = &request.certification_request_info.subject_pki;
    let hash = &request.signature_algorithm.algorithm;
    let is = |oids: &[oid::Oid<'_>]| oids.contains(hash);
    let failed = if is(&[oid::OID_SIG_ED25519]) {
        "x509: Ed25519 verification failure"
    } else if is(&[oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_SIG_ECDSA_WITH_SHA384, oid::OID_SIG_ECDSA_WITH_SHA512]) {
        "x509: ECDSA verification failure"
    } else {
        "crypto/rsa: verification error"
    };
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    let Some(algorithm) = algorithm(hash, curve.as_ref()) else {
        return Some("x509: cannot verify signature: algorithm unimplemented".to_owned());
    };
    let verified = UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(request.certification_request_info.raw, &request.signature_value.data);
    verified.is_err().then(|| failed.to_owned())
}

/// How a request signed like this, with a key on this curve, is verified.
fn algorithm(hash: &oid::Oid<'_>, curve: Option<&oid::Oid<'_>>) -> Option<&'static dyn VerificationAlgorithm> {
    let rsa: [(oid::Oid<'_>, &'static dyn VerificationAlgorithm); 5] = [
        (oid::OID_PKCS1_SHA1WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        (oid::OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        (oid::OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
        (oid::OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
        (oid::OID_SIG_ED25519, &signature::ED25519),
    ];
    if let Some((_, found)) = rsa.into_iter().find(|(oid, _)| oid == hash) {
        return Some(found);
    }
    let (p256, p384, p521) = (oid::OID_EC_P256, oid::OID_NIST_EC_P384, oid::OID_NIST_EC_P521);
    let (sha256, sha384, sha512) = (oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_SIG_ECDSA_WITH_SHA384, oid::OID_SIG_ECDSA_WITH_SHA512);
    let elliptic: [(&oid::Oid<'_>, &oid::Oid<'_>, &'static dyn VerificationAlgorithm); 9] = [
        (&p256, &sha256, &signature::ECDSA_P256_SHA256_ASN1),
        (&p256, &sha384, &signature::ECDSA_P256_SHA384_ASN1),
        (&p256, &sha512, &signature::ECDSA_P256_SHA512_ASN1),
        (&p384, &sha256, &signature::ECDSA_P384_SHA256_ASN1),
        (&p384, &sha384, &signature::ECDSA_P384_SHA384_ASN1),
        (&p384, &sha512, &signature::ECDSA_P384_SHA512_ASN1),
        (&p521, &sha256, &signature::ECDSA_P521_SHA256_ASN1),
        (&p521, &sha384, &signature::ECDSA_P521_SHA384_ASN1),
        (&p521, &sha512, &signature::ECDSA_P521_SHA512_ASN1),
    ];
    elliptic.into_iter().find(|(on, oid, _)| Some(*on) == curve && *oid == hash).map(|(_, _, found)| found)
}

/// What is wrong with issued certificates (`validateCertificate`); none at all is right.
pub fn certificate_problem(pem: &[u8]) -> Option<String> {
    let (mut rest, mut blocks) = (pem, 0);
    while let Some((block, after)) = next_block(rest) {
        if block.ty != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {}", go_quote(&block.ty)));
        }
        if block.headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        let mut der = &block.der[..];
        if der.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        while !der.is_empty() {
            match X509Certificate::from_der(der) {
                Ok((left, _)) => der = left,
                Err(_) => return Some("x509: malformed certificate".to_owned()),
            }
        }
        (rest, blocks) = (after, blocks + 1);
    }
    (blocks == 0 && !pem.is_empty()).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(ty: &str, content: &str) -> String {
        format!("-----BEGIN {ty}-----\n{content}\n-----END {ty}-----\n")
    }

    #[test]
    fn blocks_are_found_as_go_finds_them() {
        for (text, found) in [
            (String::new(), None),
            (block("A", "YQ=="), Some(("A", false, "a"))),
            (format!("words\n{}", block("A", "Y Q = =")), Some(("A", false, "a"))),
            (format!("words{}", block("A", "YQ==")), None),
            (block("A", "k: v\n\nYQ=="), Some(("A", true, "a"))),
            (format!("{}{}", block("A", "?"), block("B", "Yg==")), Some(("B", false, "b"))),
            ("-----BEGIN A-----\nYQ==\n-----END B-----\n".to_owned(), None),
            ("-----BEGIN A-----\n-----END A-----".to_owned(), Some(("A", false, ""))),
            ("-----BEGIN A-----\n".repeat(10_000), None),
        ] {
            let got = next_block(text.as_bytes()).map(|(block, _)| block);
            let wanted = found.map(|(ty, headers, der): (&str, bool, &str)| Block { ty: ty.into(), headers, der: der.into() });
            assert_eq!(got, wanted, "{text:.80}");
        }
    }

    #[test]
    fn what_is_no_certificate() {
        for (text, problem) in [
            (String::new(), None),
            ("x".to_owned(), Some("must contain at least one CERTIFICATE PEM block")),
            (block("A", "YQ=="), Some("only CERTIFICATE PEM blocks are allowed, found \"A\"")),
            (block("CERTIFICATE", "k: v\n\nYQ=="), Some("no PEM block headers are permitted")),
            (block("CERTIFICATE", ""), Some("found CERTIFICATE PEM block containing 0 certificates")),
            (block("CERTIFICATE", "YQ=="), Some("x509: malformed certificate")),
        ] {
            assert_eq!(certificate_problem(text.as_bytes()).as_deref(), problem, "{text}");
        }
    }

    #[test]
    fn what_is_no_request() {
        for (text, problem) in [
            (block("CERTIFICATE", "YQ=="), "PEM block type must be CERTIFICATE REQUEST"),
            (block("CERTIFICATE REQUEST", ""), "asn1: syntax error: sequence truncated"),
            (block("CERTIFICATE REQUEST", "MAA="), "asn1: syntax error: data truncated"),
        ] {
            assert_eq!(request_problem(text.as_bytes()).as_deref(), Some(problem), "{text}");
        }
    }
}
