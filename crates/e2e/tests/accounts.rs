//! ServiceAccounts as pods see them: mounted tokens, who opts out, projected tokens, and an issuer that can be checked. The steps
//! of upstream's conformance tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use anyhow::ensure;
use base64::Engine as _;
use e2e::{Space, eventually, extension, is_root, shared};
use serde_json::{Value, json};

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn space(name: &str) -> Option<Space> {
    is_root().then(|| Space::new(shared().unwrap(), name).unwrap())
}

fn log(space: &Space, pod: &str, container: &str) -> String {
    let path = space.path(&format!("pods/{pod}/log?container={container}"));
    space.with_client(|client| async move { Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?) }).unwrap()
}

#[test]
fn a_token_is_mounted() {
    let Some(space) = space("sa-mount") else { return };
    space.create("serviceaccounts", &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mount-test"}})).unwrap();
    let containers: Vec<Value> = ["token", "ca.crt", "namespace"]
        .iter()
        .map(|file| json!({"name": file.replace('.', "-"), "image": "skiff/hello", "command": ["cat", format!("{MOUNT}/{file}")]}))
        .collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "mount-test", "restartPolicy": "Never", "containers": containers}});
    let made = space.create("pods", &pod).unwrap();
    assert!(made["spec"]["containers"].as_array().unwrap().iter().all(|c| c["volumeMounts"][0]["mountPath"] == MOUNT), "{made}");
    space.wait_phase("p", "Succeeded").unwrap();
    assert_eq!(log(&space, "p", "namespace"), "sa-mount");
    assert_eq!(space.read("configmaps/kube-root-ca.crt").unwrap()["data"]["ca.crt"], log(&space, "p", "ca-crt"));
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": log(&space, "p", "token").trim()}});
    let reviewed = space.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(&review)).unwrap();
    let user = &reviewed["status"]["user"];
    assert_eq!(
        (&reviewed["status"]["authenticated"], &user["username"]),
        (&json!(true), &json!("system:serviceaccount:sa-mount:mount-test"))
    );
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:sa-mount", "system:authenticated"]);
    assert_eq!((&user["groups"], &user["extra"]["authentication.kubernetes.io/pod-name"]), (&groups, &json!(["p"])), "{user}");
}

#[test]
fn tokens_are_mounted_unless_somebody_opts_out() {
    let Some(space) = space("sa-opt-out") else { return };
    for (account, says) in [("default-value", None), ("mount", Some(true)), ("nomount", Some(false))] {
        let mut body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        if let Some(says) = says {
            body["automountServiceAccountToken"] = json!(says);
        }
        space.create("serviceaccounts", &body).unwrap();
        for (pod, says_too) in [("unset", None), ("yes", Some(true)), ("no", Some(false))] {
            let name = format!("{pod}-{account}");
            // It shows what it finds.
            let look = format!("cat {MOUNT}/namespace || echo nothing");
            let mut body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"serviceAccountName": account,
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "skiff/hello", "command": ["sh", "-c", look]}]}});
            if let Some(says) = says_too {
                body["spec"]["automountServiceAccountToken"] = json!(says);
            }
            let made = space.create("pods", &body).unwrap();
            let mounted = says_too.or(says).unwrap_or(true);
            let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().map_or(0, Vec::len);
            assert_eq!(mounts == 1, mounted, "{name}: {made}");
        }
    }
    for (pod, found) in
        [("yes-nomount", "sa-opt-out"), ("unset-nomount", "nothing"), ("no-mount", "nothing"), ("unset-default-value", "sa-opt-out")]
    {
        space.wait_phase(pod, "Succeeded").unwrap();
        assert!(log(&space, pod, "c").contains(found), "{pod}");
    }
}

fn projected(name: &str, audience: &str, image: &str, command: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"restartPolicy": "Never",
        "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "sa-token", "expirationSeconds": 7200, "audience": audience}}]}}],
        "containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "args": command,
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/tokens", "readOnly": true}]}]}})
}

#[test]
fn a_projected_token_is_mounted() {
    let Some(space) = space("sa-projected") else { return };
    space.create("pods", &projected("p", "somebody", "skiff/hello", &json!(["cat", "/var/run/secrets/tokens/sa-token"]))).unwrap();
    space.wait_phase("p", "Succeeded").unwrap();
    let token = log(&space, "p", "c");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(["somebody"]), &json!("system:serviceaccount:sa-projected:default")));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "p");
}

#[test]
fn a_pod_checks_its_own_token_with_the_issuer() {
    let Some(space) = space("sa-issuer") else { return };
    extension::load(&space, Path::new(env!("CARGO_BIN_EXE_extension"))).unwrap();
    space.create("pods", &projected("validator", "oidc-discovery-test", extension::IMAGE, &json!(["discover"]))).unwrap();
    eventually("it is done", || {
        let found = space.read("pods/validator")?;
        ensure!(matches!(found["status"]["phase"].as_str(), Some("Succeeded" | "Failed")), "{}", found["status"]);
        Ok(())
    })
    .unwrap();
    let said = log(&space, "validator", "c");
    assert!(said.contains("OK: validated token of system:serviceaccount:sa-issuer:default"), "{said}");
}
