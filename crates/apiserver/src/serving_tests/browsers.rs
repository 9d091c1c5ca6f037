//! CORS, HSTS, and connections that are told to end.

use http::Request;
use http_body_util::Full;

use super::{As, Cluster, said};

#[tokio::test]
async fn pages_of_other_sites_are_let_in_by_name() {
    let cluster = Cluster::start(|config| {
        config.cors_allowed_origins = vec!["^https://good\\.example$".to_owned()];
        config.strict_transport_security_directives = vec!["max-age=60".to_owned()];
    })
    .await;
    let mut nobody = cluster.client(As::Nobody).await;
    let mut ask = async |method: &str, origin: &str| {
        let request = Request::builder().method(method).uri("https://h/api/v1/nodes").header("origin", origin);
        said(nobody.0.send_request(request.body(Full::default()).unwrap()).await.unwrap()).await
    };
    // A browser asks before it sends credentials: nobody needs to be known for that.
    let preflight = ask("OPTIONS", "https://good.example").await;
    assert_eq!((preflight.code, preflight.header("access-control-allow-credentials")), (204, "true"));
    let refused = ask("GET", "https://good.example").await;
    assert_eq!((refused.code, refused.header("access-control-allow-origin")), (403, "https://good.example"));
    assert_eq!(refused.header("strict-transport-security"), "max-age=60");
    let other = ask("OPTIONS", "https://bad.example").await;
    assert!(other.code >= 400 && !other.headers.contains_key("access-control-allow-origin"), "{}", other.code);
    cluster.end().await;
}

#[tokio::test]
async fn connections_are_told_to_go_by_chance() {
    let cluster = Cluster::start(|config| config.goaway_chance = 1.0).await;
    let client = cluster.client(As::Admin).await;
    assert_eq!(client.get("/version").await.code, 200);
    let gone = async {
        while client.send("GET", "/version", "", bytes::Bytes::new()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    assert_eq!(cluster.client(As::Admin).await.get("/version").await.code, 200, "a new connection is welcome");
    cluster.end().await;
}
