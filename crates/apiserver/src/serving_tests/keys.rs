//! A new cluster serves before it has the key of its tokens; only tokens wait.

use std::time::Duration;

use serde_json::json;

use super::Cluster;

const ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts";

#[tokio::test(flavor = "multi_thread")]
async fn tokens_wait_for_their_key_and_nothing_else_does() {
    // What a key is written to before it has its name cannot be written.
    let mut in_the_way = None;
    let cluster = Cluster::start(|config| {
        let path = config.pki_dir.join("sa.key.new");
        std::fs::create_dir_all(&path).unwrap();
        in_the_way = Some(path);
    })
    .await;
    assert_eq!(cluster.ask("GET", "/readyz", json!(null)).await.code, 200);
    cluster.ok("POST", ACCOUNT, json!({"metadata": {"name": "a"}})).await;
    let asked = async { cluster.ok("POST", &format!("{ACCOUNT}/a/token"), json!({"spec": {}})).await };
    let keys = async { cluster.ok("GET", "/openid/v1/jwks", json!(null)).await };
    let mut both = Box::pin(futures::future::join(asked, keys));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut both).await.is_err(), "there is no key");
    let path = in_the_way.unwrap();
    assert!(!path.with_file_name("sa.key").exists() && cluster.api.pki().made_service_account().is_none());
    std::fs::remove_dir(&path).unwrap();
    let (token, keys) = both.await;
    let token = token["status"]["token"].as_str().unwrap();
    let id = auth::jwt::parse(token).ok().unwrap().key_id;
    assert_eq!(keys["keys"][0]["kid"].as_str().map(str::to_owned), id);
    // It is on disk, and the next server has the same.
    let again = crate::pki::Pki::open(path.parent().unwrap()).unwrap();
    assert!(again.made_service_account().unwrap().verify(token).is_some());
    cluster.end().await;
}
