//! How the server stops.

use std::time::Duration;

use http_body_util::BodyExt as _;

use super::{As, Cluster, Slow};

#[tokio::test]
async fn a_server_that_stops_says_so_finishes_and_ends_watches() {
    let store = Slow::new();
    let cluster = Cluster::start_on(store.clone(), |config| config.shutdown_delay = Duration::from_millis(400)).await;
    let admin = cluster.client(As::Admin).await;
    let other = cluster.client(As::Admin).await;
    store.gate.send_replace(false);
    let held = tokio::spawn({
        let admin = admin.clone();
        async move { admin.get("/api/v1/namespaces/default/configmaps/slow").await }
    });
    let mut watch = admin.begin("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0").await.into_body();
    let address = cluster.api.local_addr;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopped = tokio::spawn(cluster.api.shutdown());
    tokio::time::sleep(Duration::from_millis(100)).await;
    // At first only the check fails.
    let ready = other.get("/readyz?verbose").await;
    assert_eq!(ready.code, 500);
    assert!(ready.text.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{}", ready.text);
    assert_eq!(other.get("/livez").await.code, 200);
    assert_eq!(other.get("/api/v1/namespaces/default").await.code, 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = other.get("/api/v1/namespaces/default").await;
    assert_eq!((refused.code, refused.message().as_str(), refused.header("retry-after")), (503, "apiserver is shutting down", "1"));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    assert!(!stopped.is_finished(), "a request is in flight");
    store.gate.send_replace(true);
    assert_eq!(held.await.unwrap().code, 404, "it was answered");
    let ended = async { while let Some(Ok(_)) = watch.frame().await {} };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap().unwrap();
}
