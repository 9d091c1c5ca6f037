//! Requests for certificates: what is asked, who signs, and what may become of it.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{check_create, check_update, created};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

fn pem(ty: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("-----BEGIN {ty}-----\nYQ==\n-----END {ty}-----\n"))
}

/// The request of the minimal object with another signature.
fn forged() -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    let (_, object, _) = created("CertificateSigningRequest", &json!({}));
    let text = String::from_utf8(engine.decode(object["spec"]["request"].as_str().unwrap()).unwrap()).unwrap();
    let packed: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = engine.decode(packed).unwrap();
    *der.last_mut().unwrap() ^= 1;
    engine.encode(format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", engine.encode(der)))
}

#[test]
fn what_is_asked_for() {
    let (forged, empty, other) = (forged(), String::new(), pem("CERTIFICATE"));
    let bad = |request: &str, problem: &str| format!("spec.request: Invalid value: \"{request}\": {problem}");
    let wrong = [
        bad(&forged, "x509: ECDSA verification failure"),
        bad(&empty, "PEM block type must be CERTIFICATE REQUEST"),
        bad(&other, "PEM block type must be CERTIFICATE REQUEST"),
    ];
    let spec = |key: &str, value: Value| json!({"spec": {key: value}});
    check_create(vec![
        ("CertificateSigningRequest", json!({}), &[]),
        ("CertificateSigningRequest", spec("request", json!(forged)), &[&wrong[0]]),
        ("CertificateSigningRequest", spec("request", json!(empty)), &[&wrong[1]]),
        ("CertificateSigningRequest", spec("request", json!(other)), &[&wrong[2]]),
        (
            "CertificateSigningRequest",
            spec("request", Value::Null),
            &["spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST"],
        ),
        ("CertificateSigningRequest", spec("usages", json!([])), &["spec.usages: Required value"]),
        (
            "CertificateSigningRequest",
            spec("usages", json!(["any", "any", "x"])),
            &[
                "spec.usages[2]: Unsupported value: \"x\": supported values: \"any\", \"cert sign\", \"client auth\", \"code signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \"signing\", \"timestamping\"",
                "spec.usages[1]: Duplicate value: \"any\"",
            ],
        ),
    ]);
}

#[test]
fn who_signs() {
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    let long = "a".repeat(254);
    for (name, wanted) in [
        ("", vec!["spec.signerName: Required value".to_owned()]),
        ("a.b", vec![format!("spec.signerName: Invalid value: \"a.b\": {form}")]),
        ("a.b/c/d", vec![format!("spec.signerName: Invalid value: \"a.b/c/d\": {form}")]),
        ("a.b/c.d-e", vec![]),
        (
            "A/c",
            vec![
                format!("spec.signerName: Invalid value: \"A\": validating label \"A\": {LABEL}"),
                "spec.signerName: Invalid value: \"A\": should be a domain with at least two segments separated by dots".to_owned(),
            ],
        ),
        (
            &format!("a.b/{long}"),
            vec![format!("spec.signerName: Invalid value: \"{long}\": validating label \"{long}\": must be no more than 253 characters")],
        ),
        (
            "kubernetes.io/legacy-unknown",
            vec![
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version"
                    .to_owned(),
            ],
        ),
    ] {
        let (_, _, errors) = created("CertificateSigningRequest", &json!({"spec": {"signerName": name}}));
        assert_eq!(errors, wanted, "{name}");
    }
}

#[test]
fn what_becomes_of_it() {
    let conditions = |types: &[&str]| {
        let all: Vec<Value> = types.iter().map(|ty| json!({"type": ty, "status": "True"})).collect();
        json!({"status": {"conditions": all}})
    };
    let certificate = |content: &str| json!({"status": {"certificate": content}});
    let (junk, request) = (pem("CERTIFICATE"), pem("CERTIFICATE REQUEST"));
    check_update(vec![
        ("CertificateSigningRequest", "approval", json!({}), conditions(&["Approved"]), &[]),
        (
            "CertificateSigningRequest",
            "approval",
            json!({}),
            conditions(&["Denied", "Approved"]),
            &["status.conditions[1].type: Invalid value: \"Approved\": Approved and Denied conditions are mutually exclusive"],
        ),
        // What was wrong already may stay so.
        ("CertificateSigningRequest", "approval", conditions(&["Denied", "Approved"]), json!({"metadata": {"labels": {"a": "b"}}}), &[]),
        ("CertificateSigningRequest", "status", json!({}), conditions(&["x", "x"]), &["status.conditions[1].type: Duplicate value: \"x\""]),
        (
            "CertificateSigningRequest",
            "approval",
            conditions(&["Approved"]),
            json!({"status": {"conditions": [{"type": "Approved", "status": "False"}]}}),
            &["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""],
        ),
        (
            "CertificateSigningRequest",
            "status",
            json!({}),
            certificate("eA=="),
            &["status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"],
        ),
        (
            "CertificateSigningRequest",
            "status",
            json!({}),
            certificate(&request),
            &[
                "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"",
            ],
        ),
        (
            "CertificateSigningRequest",
            "status",
            certificate("eA=="),
            certificate(&junk),
            &["status.certificate: Forbidden: updates may not modify existing certificate content"],
        ),
    ]);
}
