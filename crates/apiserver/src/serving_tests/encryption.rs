//! Encryption at rest, as a client and as a reader of the datastore see it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use store::Store as _;

use super::{As, Cluster};

fn config(keys: &[(&str, u8)]) -> String {
    let encode = |byte: u8| base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    let keys: Vec<String> = keys.iter().map(|(name, byte)| format!("{{name: {name}, secret: {}}}", encode(*byte))).collect();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, widgets.example.com]\n  \
         providers: [{{secretbox: {{keys: [{}]}}}}, {{identity: {{}}}}]\n",
        keys.join(", ")
    )
}

#[tokio::test]
async fn secrets_are_encrypted_below_every_cache_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("encryption.yaml");
    let store = Arc::new(store::Embedded::in_memory());
    let shared: Arc<dyn store::Store> = store.clone();
    // First without, then with.
    let cluster = Cluster::start_on(shared.clone(), |_| {}).await;
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"k": "aHVudGVyMg=="}});
    let secrets = "/api/v1/namespaces/default/secrets";
    cluster.ok("POST", secrets, secret("old")).await;
    cluster.end().await;

    std::fs::write(&path, config(&[("one", 1)])).unwrap();
    let cluster = Cluster::start_on(shared.clone(), |c| {
        c.encryption_provider_config = Some(path.clone());
        c.encryption_reload = Some(Duration::from_millis(50));
    })
    .await;
    let raw = async |name: &str| store.get(&format!("/registry/secrets/default/{name}")).await.unwrap().1.unwrap().value;
    let made = cluster.ok("POST", secrets, secret("new")).await;
    assert!(raw("new").await.starts_with(b"k8s:enc:secretbox:v1:one:") && !raw("new").await.windows(8).any(|w| w == b"aHVudGVy"));
    assert!(raw("old").await.starts_with(b"{"));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    cluster.ok("POST", "/api/v1/namespaces/default/configmaps", map).await;
    let plain = store.get("/registry/configmaps/default/c").await.unwrap().1.unwrap().value;
    assert!(plain.starts_with(b"{"));
    // Lists and watches show both.
    let list = cluster.ok("GET", secrets, Value::Null).await;
    let data: Vec<&str> = list["items"].as_array().unwrap().iter().filter_map(|i| i["data"]["k"].as_str()).collect();
    assert_eq!(data, ["aHVudGVyMg==", "aHVudGVyMg=="]);
    let watch = cluster.ask("GET", &format!("{secrets}?watch=true&resourceVersion=0&timeoutSeconds=1"), Value::Null).await;
    assert_eq!(watch.text.matches("aHVudGVyMg==").count(), 2, "{}", watch.text);
    // A write that changes nothing makes nothing, unless it brings a value under a new key.
    let again = cluster.ok("PUT", &format!("{secrets}/new"), made.clone()).await;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let old = cluster.ok("GET", &format!("{secrets}/old"), Value::Null).await;
    let rewritten = cluster.ok("PUT", &format!("{secrets}/old"), old.clone()).await;
    assert_ne!(rewritten["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"]);
    assert!(raw("old").await.starts_with(b"k8s:enc:secretbox:v1:one:"));

    std::fs::write(&path, "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.ok("GET", &format!("{secrets}/new"), Value::Null).await;
    std::fs::write(&path, config(&[("two", 2), ("one", 1)])).unwrap();
    let reloaded = "automatic_reloads_total{apiserver_id_hash=\"\",status=\"success\"} 1";
    trial::until("the configuration is read again", async || cluster.metrics().await.contains(reloaded)).await;
    let seen = cluster.ok("GET", &format!("{secrets}/new"), Value::Null).await;
    cluster.ok("PUT", &format!("{secrets}/new"), seen).await;
    assert!(raw("new").await.starts_with(b"k8s:enc:secretbox:v1:two:"));
    assert_eq!(cluster.client(As::Nobody).await.get("/readyz/kms-providers").await.code, 403);
    assert_eq!(cluster.client(As::Admin).await.get("/readyz/kms-providers").await.text, "ok");
    cluster.end().await;

    // Without the keys nobody reads them.
    let cluster = Cluster::start_on(shared, |_| {}).await;
    assert_eq!(cluster.ask("GET", &format!("{secrets}/new"), Value::Null).await.code, 500);
    cluster.end().await;
}
