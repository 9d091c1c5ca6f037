//! A server whose disk fails: it says so, and tells nobody what it does not know.

use std::sync::Arc;

use serde_json::json;
use store::disk::sim::{Faults, SimDisk};

use super::{As, Cluster};

#[tokio::test]
async fn a_failed_disk_ends_consistent_reads_and_health() {
    let disk = SimDisk::new(4);
    let store = store::Embedded::with_disk(Arc::new(disk.clone()), store::Options::default()).unwrap();
    let cluster = Cluster::start_on(Arc::new(store), |_| {}).await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = cluster.ok("POST", maps, map("before")).await;
    let version = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    disk.set_faults(Faults { fail_sync: Some(0), ..Faults::default() });
    let admin = cluster.client(As::Admin).await;
    let unknown = cluster.ask("POST", maps, map("unknown")).await;
    assert_eq!((unknown.code, unknown.message().contains("syncing sim/log-")), (503, true), "{}", unknown.text);
    let streaming = "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    for path in [format!("{maps}/before"), maps.to_owned(), format!("{maps}?resourceVersion=0"), format!("{maps}{streaming}")] {
        let said = admin.get(&path).await;
        assert_eq!(said.code, 503, "{path}: {}", said.text);
        assert!(said.message().starts_with("the store has failed: syncing sim/log-"), "{path}: {}", said.text);
    }
    // What it was is known.
    let past = admin.get(&format!("{maps}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
    assert_eq!(past.code, 200, "{}", past.text);
    assert!(past.text.contains("\"before\"") && !past.text.contains("\"unknown\""), "{}", past.text);
    for path in ["/livez", "/readyz"] {
        let said = admin.get(path).await;
        assert_eq!((said.code, said.text.contains("[-]etcd failed")), (500, true), "{path}: {}", said.text);
    }
    let why = admin.get("/livez/etcd").await.text;
    assert!(why.contains("the store has failed: syncing sim/log-"), "{why}");
    cluster.end().await;
}
