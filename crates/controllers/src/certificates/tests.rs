//! The life of a request, from its creation to its deletion.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::keys::{Keys, NoToken, Order, Signer};
use crate::model::Model;

/// `O=system:nodes, CN=system:node:n`; the same with the name `host`; `O=a, O=b, CN=alice`.
const NODE: &str = "MIHqMIGRAgEAMC8xFTATBgNVBAoMDHN5c3RlbTpub2RlczEWMBQGA1UEAwwNc3lz\n\
    dGVtOm5vZGU6bjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCuILUt9pkkHtw2q\n\
    M6v6Ym2rKuHw4FzNugE/1MJv2Y48+b0HzSroUWuhKogPR2nxca8tkxkWs9BPWr9A\n\
    plhJ5RGgADAKBggqhkjOPQQDAgNIADBFAiEAkxvNjKvH+2WEPvoJWX75Q3n7YW7k\n\
    I9V2bLsWRfnEazoCIAMxpdGQMf45crgF9N/sLSGffHcSRdsm57oB4wg7x3wM";
const NODE_WITH_NAME: &str = "MIIBDDCBswIBADAvMRUwEwYDVQQKDAxzeXN0ZW06bm9kZXMxFjAUBgNVBAMMDXN5\n\
    c3RlbTpub2RlOm4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQriC1LfaZJB7cN\n\
    qjOr+mJtqyrh8OBczboBP9TCb9mOPPm9B80q6FFroSqID0dp8XGvLZMZFrPQT1q/\n\
    QKZYSeURoCIwIAYJKoZIhvcNAQkOMRMwETAPBgNVHREECDAGggRob3N0MAoGCCqG\n\
    SM49BAMCA0gAMEUCIFbOy0Nt6JVlGhqSvNOc1JLIYQRd29TzzcVkmGCYom4vAiEA\n\
    m8o614bSeb9+XqiGXa5jGgEIvlVorTmlvlKu4VeLkOs=";
const ALICE: &str = "MIHjMIGKAgEAMCgxCjAIBgNVBAoMAWExCjAIBgNVBAoMAWIxDjAMBgNVBAMMBWFs\n\
    aWNlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEK4gtS32mSQe3Daozq/pibasq\n\
    4fDgXM26AT/Uwm/Zjjz5vQfNKuhRa6EqiA9HafFxry2TGRaz0E9av0CmWEnlEaAA\n\
    MAoGCCqGSM49BAMCA0gAMEUCIC9aW59ynvpLhpx074g45+bGawMqzwew+LOXm37o\n\
    ujtnAiEAh8uIP+sdAtKyhO+GzZKDhsVioBBoW2NPYgOiNLsDJfk=";

struct Stamp;

impl Signer for Stamp {
    fn certificate(&self, order: &Order) -> Result<String, String> {
        Ok(format!("{} {}", order.usages.join(","), order.not_after - order.not_before))
    }

    fn token(&self, _: &Value) -> Result<String, NoToken> {
        Err(NoToken::NotYet)
    }
}

fn request(signer: &str, body: &str, usages: &[&str]) -> Value {
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
        "spec": {"request": STANDARD.encode(pem), "signerName": format!("kubernetes.io/{signer}"), "usages": usages,
            "username": "system:node:n", "groups": ["system:nodes"]}})
}

fn model(request: &Value, allowed: &[&str]) -> Model {
    let mut model = Model::new(std::slice::from_ref(request));
    model.allowed = allowed.iter().map(|a| (*a).to_owned()).collect();
    model.config.keys = Keys(Some(Arc::new(Stamp)));
    model
}

fn conditions(model: &Model) -> Vec<String> {
    let request = model.get::<CertificateSigningRequest>("", "r");
    let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().map(|c| format!("{} {}: {}", c["type"], c["reason"], c["message"]).replace('"', "")).collect()
}

fn run(model: &mut Model) {
    for controller in [&approve::CONTROLLER, &sign::CONTROLLER] {
        model.settle(controller, &Key::cluster("r"));
    }
}

fn certificate(model: &Model) -> String {
    let text = model.get::<CertificateSigningRequest>("", "r")["status"]["certificate"].as_str().unwrap_or("").to_owned();
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];

#[test]
fn a_kubelets_certificate_is_approved_by_review_and_issued() {
    for (allowed, message) in [
        (&["selfnodeclient", "nodeclient"][..], "Auto approving self kubelet client certificate after SubjectAccessReview."),
        (&["nodeclient"], "Auto approving kubelet client certificate after SubjectAccessReview."),
    ] {
        let mut model = model(&request("kube-apiserver-client-kubelet", NODE, &CLIENT_USAGES), allowed);
        run(&mut model);
        assert_eq!(conditions(&model), [format!("Approved AutoApproved: {message}")]);
        assert_eq!(certificate(&model), format!("digital signature,client auth {}", 365 * 86400));
    }
    let mut refused = model(&request("kube-apiserver-client-kubelet", NODE, &CLIENT_USAGES), &[]);
    run(&mut refused);
    assert_eq!((conditions(&refused).len(), certificate(&refused)), (0, String::new()));
    // Another signer's, another subject's and one with names are a person's to approve.
    for request in [
        request("kube-apiserver-client", NODE, &CLIENT_USAGES),
        request("kube-apiserver-client-kubelet", ALICE, &CLIENT_USAGES),
        request("kube-apiserver-client-kubelet", NODE_WITH_NAME, &CLIENT_USAGES),
        request("kube-apiserver-client-kubelet", NODE, &["client auth", "server auth"]),
    ] {
        let mut model = model(&request, &["selfnodeclient", "nodeclient"]);
        run(&mut model);
        assert_eq!(conditions(&model), Vec::<String>::new());
    }
}

#[test]
fn signers_refuse_what_is_not_theirs_for_good() {
    let approved = |mut request: Value| {
        request["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        request
    };
    let serving = ["digital signature", "server auth"];
    for (request, want) in [
        (request("kube-apiserver-client", ALICE, &CLIENT_USAGES), Ok(())),
        (request("legacy-unknown", ALICE, &serving), Ok(())),
        (request("kubelet-serving", NODE_WITH_NAME, &serving), Ok(())),
        (request("kubelet-serving", NODE, &serving), Err("DNS or IP subjectAltName is required")),
        (request("kubelet-serving", ALICE, &serving), Err("subject organization is not system:nodes")),
        (
            request("kubelet-serving", NODE_WITH_NAME, &CLIENT_USAGES),
            Err("usages did not match [digital signature key encipherment server auth]"),
        ),
        (request("kube-apiserver-client", ALICE, &serving), Err("invalid usage for client certificate: server auth")),
        (request("kube-apiserver-client", ALICE, &["key encipherment"]), Err("missing required usage for client certificate: client auth")),
    ] {
        let mut model = model(&approved(request), &[]);
        run(&mut model);
        let all = conditions(&model);
        match want {
            Ok(()) => assert!(all.len() == 1 && !certificate(&model).is_empty(), "{all:?}"),
            Err(why) => assert_eq!(all.last().unwrap(), &format!("Failed SignerValidationFailure: {why}")),
        }
    }
    // A denied one and one of somebody else's signer stay as they are.
    let mut denied = request("kube-apiserver-client", ALICE, &CLIENT_USAGES);
    denied["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}, {"type": "Approved", "status": "True"}]});
    let mut foreign = approved(request("kube-apiserver-client", ALICE, &CLIENT_USAGES));
    foreign["spec"]["signerName"] = json!("example.com/mine");
    for request in [denied, foreign, request("kube-apiserver-client", ALICE, &CLIENT_USAGES)] {
        let mut model = model(&request, &[]);
        run(&mut model);
        assert_eq!(certificate(&model), "");
    }
}

#[test]
fn a_certificate_lives_as_long_as_asked_within_bounds() {
    for (asked, lives) in [(60, 600 + 300), (3600, 3600 + 300), (86400, 86400), (i64::from(i32::MAX), 365 * 86400)] {
        let mut request = request("kube-apiserver-client", ALICE, &CLIENT_USAGES);
        request["spec"]["expirationSeconds"] = json!(asked);
        request["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let mut model = model(&request, &[]);
        run(&mut model);
        assert_eq!(certificate(&model), format!("digital signature,client auth {lives}"), "{asked}");
    }
}

#[test]
fn requests_end() {
    let clean = |model: &mut Model| {
        model.settle(&clean::CONTROLLER, &Key::cluster("r"));
        model.of_kind::<CertificateSigningRequest>().is_empty()
    };
    let mut pending = model(&request("kube-apiserver-client", ALICE, &CLIENT_USAGES), &[]);
    assert!(!clean(&mut pending));
    pending.pass(24 * 3600 - 1);
    assert!(!clean(&mut pending));
    pending.pass(1);
    assert!(clean(&mut pending));
    let mut denied = model(&request("kube-apiserver-client", ALICE, &CLIENT_USAGES), &[]);
    let at = denied.now;
    let condition = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "lastUpdateTime": at}]}});
    denied.merge::<CertificateSigningRequest>("", "r", &condition);
    denied.pass(3599);
    assert!(!clean(&mut denied));
    denied.pass(1);
    assert!(clean(&mut denied));
}
