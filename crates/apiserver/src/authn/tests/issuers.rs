//! Tokens of an issuer that serves its keys over HTTPS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;
use crate::pki::ServiceAccountKeys;
use crate::testing::{HttpsServer, json_response};

/// An issuer: its server, and the key it signs with at the moment.
struct Provider {
    server: HttpsServer,
    key: Arc<Mutex<ServiceAccountKeys>>,
    _dir: tempfile::TempDir,
}

fn new_key(dir: &std::path::Path, name: &str) -> ServiceAccountKeys {
    let path = dir.join(name);
    std::fs::write(&path, rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem()).unwrap();
    ServiceAccountKeys::load(&path, &[]).unwrap()
}

impl Provider {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Arc::new(Mutex::new(new_key(dir.path(), "first")));
        let shown = key.clone();
        let server = HttpsServer::start(&["127.0.0.1"], move |asked| {
            let set = shown.lock().unwrap().jwks();
            async move {
                let base = format!("https://{}", asked.headers["host"].to_str().unwrap());
                match asked.uri.as_str() {
                    "/.well-known/openid-configuration" => json_response(200, &json!({"issuer": base, "jwks_uri": format!("{base}/keys")})),
                    "/keys" => json_response(200, &set),
                    _ => json_response(404, &Value::Null),
                }
            }
        })
        .await;
        Self { server, key, _dir: dir }
    }

    fn token(&self, more: &Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = json!({"iss": self.server.url(""), "aud": "app", "sub": "alice", "exp": now + 600});
        for (key, value) in more.as_object().unwrap() {
            claims[key] = value.clone();
        }
        self.key.lock().unwrap().sign(&claims).unwrap()
    }

    fn configuration(&self, prefix: &str) -> String {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{"issuer": {"url": self.server.url(""), "certificateAuthority": self.server.ca_pem, "audiences": ["app"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": prefix}, "groups": {"expression": "claims.?roles.orValue([])"}}}],
            "anonymous": {"enabled": true, "conditions": [{"path": "/healthz"}]}})
        .to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_tokens_are_taken_as_configured_and_the_file_is_followed() {
    let provider = Provider::start().await;
    let mut file = std::path::PathBuf::new();
    let cluster = Cluster::start(|config, dir| {
        file = dir.join("authentication.yaml");
        std::fs::write(&file, provider.configuration("o:")).unwrap();
        config.authentication.authentication_config = Some(file.clone());
        config.authentication.reload = Some(Duration::from_millis(20));
    })
    .await;
    let user = cluster.bearer(&provider.token(&json!({"roles": ["dev"]}))).await.unwrap();
    assert_eq!((&user["username"], &user["groups"]), (&json!("o:alice"), &json!(["dev", "system:authenticated"])));
    assert_eq!(provider.server.calls().len(), 2, "the document and the keys, once");
    let now = jiff::Timestamp::now().as_second();
    for (more, why) in [
        (json!({"aud": "other"}), "expected audience"),
        (json!({"exp": now - 1}), "token is expired"),
        (json!({"sub": null}), "claim not present"),
    ] {
        let token = provider.token(&more);
        assert_eq!(cluster.bearer(&token).await, Err(401));
        let said = cluster.review(&token, &[]).await["error"].as_str().unwrap().to_owned();
        assert!(said.contains(why) && !said.contains(&token), "{said}");
    }
    // Another's signature in the issuer's name.
    let dir = tempfile::tempdir().unwrap();
    let forged = new_key(dir.path(), "k").sign(&json!({"iss": provider.server.url(""), "aud": "app", "sub": "root", "exp": now + 60}));
    assert_eq!(cluster.bearer(&forged.unwrap()).await, Err(401));
    // Anonymous users may come to the named path alone.
    assert_eq!(cluster.send(None, &[], "GET", "/healthz", Value::Null).await.0, 200);
    assert_eq!(cluster.send(None, &[], "GET", "/version", Value::Null).await.0, 401);
    // A broken file changes nothing, a good one does.
    let token = provider.token(&json!({}));
    std::fs::write(&file, "jwt: [").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.bearer(&token).await.unwrap()["username"], "o:alice");
    std::fs::write(&file, provider.configuration("new:")).unwrap();
    let changed = async {
        while cluster.bearer(&token).await.unwrap()["username"] != "new:alice" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changed).await.unwrap();
    // What it says of those without credentials is followed too.
    let mut closed: Value = serde_json::from_str(&provider.configuration("new:")).unwrap();
    closed["anonymous"] = json!({"enabled": false});
    std::fs::write(&file, closed.to_string()).unwrap();
    let changed = async {
        while cluster.send(None, &[], "GET", "/healthz", Value::Null).await.0 != 401 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changed).await.unwrap();
    cluster.api.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_of_flags_may_be_down_and_its_keys_may_change() {
    let provider = Provider::start().await;
    let cluster = Cluster::start(|config, _| {
        config.authentication.oidc = Some(auth::oidc::Flags {
            issuer_url: provider.server.url(""),
            client_id: "app".into(),
            ca: provider.server.ca_pem.clone(),
            groups_claim: "roles".into(),
            signing_algorithms: vec!["ES384".into()],
            ..auth::oidc::Flags::default()
        });
    })
    .await;
    let user = cluster.bearer(&provider.token(&json!({"roles": "dev"}))).await.unwrap();
    assert_eq!(user["username"], format!("{}#alice", provider.server.url("")));
    assert_eq!(user["groups"], json!(["dev", "system:authenticated"]));
    let before = provider.server.calls().len();
    *provider.key.lock().unwrap() = new_key(provider._dir.path(), "second");
    // A key that is not known is asked for, but not at every token.
    for _ in 0..20 {
        assert_eq!(cluster.bearer(&provider.token(&json!({}))).await, Err(401));
    }
    assert!(provider.server.calls().len() <= before + 2);
    cluster.api.shutdown().await;
}
