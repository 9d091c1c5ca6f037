//! Calls over real sockets: what goes right once, and what goes wrong in each way, in Go's words.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Endpoint, Identity, Manner, Trust, post};
use crate::testing::{Asked, Cluster, HttpsServer, json_response, text_response};

fn manner(timeout_ms: u64) -> Manner {
    Manner { timeout: Duration::from_millis(timeout_ms), tell_timeout: true }
}

async fn echo(asked: Asked) -> http::Response<http_body_util::Full<bytes::Bytes>> {
    match asked.uri.split('?').next().unwrap() {
        "/slow" => tokio::time::sleep(Duration::from_secs(30)).await,
        "/moved" => {
            let mut response = text_response(307, "");
            response.headers_mut().insert("location", "/ok".parse().unwrap());
            return response;
        }
        "/broken" => return text_response(500, "it broke"),
        "/huge" => return text_response(200, &"x".repeat(33 << 20)),
        _ => {}
    }
    json_response(200, &json!({"kind": "Echo", "apiVersion": "v1", "got": asked.body, "client": asked.client}))
}

async fn said(cluster: &Cluster, to: &Endpoint, timeout_ms: u64) -> Result<Value, String> {
    post(cluster.api.api(), to, &json!({"a": 1}), manner(timeout_ms)).await.map_err(|e| e.to_string())
}

fn at(server: &HttpsServer, path: &str) -> Endpoint {
    Endpoint::url_of(&server.url(path), Trust::bundle(server.ca_pem.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_call_brings_the_answer_and_keeps_the_connection() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&["127.0.0.1"], echo).await;
    let mut to = at(&server, "/ok?x=y");
    to.token = Some("secret".to_owned());
    let identity = cluster.api.pki().issue_client("me", &[]).unwrap();
    to.identity = Some(Identity { cert_pem: identity.cert_pem.as_bytes().into(), key_pem: identity.key_pem.as_bytes().into() });
    for _ in 0..3 {
        let answer = said(&cluster, &to, 10_000).await.unwrap();
        assert_eq!((&answer["got"], &answer["client"]), (&json!({"a": 1}), &json!("me")));
    }
    let calls = server.calls();
    assert_eq!(calls[0].uri, "/ok?x=y&timeout=10s");
    assert_eq!(calls[0].headers["authorization"], "Bearer secret");
    assert_eq!(calls[0].headers["host"], format!("127.0.0.1:{}", server.port));
    assert!(!format!("{to:?}").contains("PRIVATE"), "no key in what is logged");
    cluster.end().await;
}

#[tokio::test]
async fn failures_read_as_gos() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&["127.0.0.1"], echo).await;
    let refused = |why: &str, path: &str| Err(format!("Post \"{}?timeout=1s\": {why}", server.url(path)));
    let deadline = refused("context deadline exceeded", "/slow");
    assert_eq!(said(&cluster, &at(&server, "/slow"), 300).await, deadline);
    let unexpected = "an error on the server (\"it broke\") has prevented the request from succeeding";
    assert_eq!(said(&cluster, &at(&server, "/broken"), 1000).await, Err(unexpected.to_owned()));
    let moved = "the server responded with the status code 307 but did not return more information";
    assert_eq!(said(&cluster, &at(&server, "/moved"), 1000).await, Err(moved.to_owned()), "redirects are not followed");
    assert_eq!(server.calls().len(), 3);
    assert!(said(&cluster, &at(&server, "/huge"), 20_000).await.unwrap_err().contains("length limit exceeded"));

    let stranger = HttpsServer::start(&["127.0.0.1"], echo).await;
    let mut other_ca = at(&server, "/ok");
    other_ca.trust = Trust::bundle(stranger.ca_pem.as_bytes()).unwrap();
    let unknown = refused("tls: failed to verify certificate: x509: certificate signed by unknown authority", "/ok");
    assert_eq!(said(&cluster, &other_ca, 1000).await, unknown);

    let named = HttpsServer::start(&["a.svc", "b.svc"], echo).await;
    let mut to = at(&named, "/ok");
    let text = said(&cluster, &to, 1000).await.unwrap_err();
    let want = "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs";
    assert!(text.ends_with(want), "{text}");
    to.server_name = Some("c.svc".to_owned());
    let text = said(&cluster, &to, 1000).await.unwrap_err();
    assert!(text.ends_with("x509: certificate is valid for a.svc, b.svc, not c.svc"), "{text}");
    to.server_name = Some("a.svc".to_owned());
    assert!(said(&cluster, &to, 1000).await.is_ok());
    let mut any = at(&named, "/ok");
    any.trust = Trust::Any;
    assert!(said(&cluster, &any, 1000).await.is_ok());
    cluster.end().await;
}

#[tokio::test]
async fn servers_that_are_none_are_told_apart() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&["127.0.0.1"], echo).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut to = at(&server, "/");
    to.place = Endpoint::url_of(&format!("https://127.0.0.1:{port}/"), Trust::System).unwrap().place;
    let plain = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(stream);
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    });
    let url = format!("Post \"https://127.0.0.1:{port}/?timeout=2s\": ");
    assert_eq!(said(&cluster, &to, 2000).await, Err(format!("{url}http: server gave HTTP response to HTTPS client")));
    let text = said(&cluster, &to, 2000).await.unwrap_err();
    assert!(text == format!("{url}EOF") || text == format!("{url}read: connection reset by peer"), "{text}");
    plain.await.unwrap();
    assert_eq!(said(&cluster, &to, 2000).await, Err(format!("{url}dial tcp 127.0.0.1:{port}: connect: connection refused")));
    cluster.end().await;
}

#[tokio::test]
async fn services_are_found_and_the_host_itself_is_not_reached_through_them() {
    let cluster = Cluster::start().await;
    let server = HttpsServer::start(&["hook.default.svc"], echo).await;
    let trust = Trust::bundle(server.ca_pem.as_bytes()).unwrap();
    let to = |name: &str, port: u16| Endpoint::service("default", name, port, "/ok", trust.clone());
    let text = |e: Result<Value, String>| e.unwrap_err();
    let url = |name: &str| format!("Post \"https://{name}.default.svc:443/ok?timeout=1s\": ");
    assert_eq!(text(said(&cluster, &to("none", 443), 1000).await), format!("{}service \"none\" not found", url("none")));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"}, "spec": {"clusterIP": "None", "ports": [{"port": 443}]}});
    cluster.ok("POST", "/api/v1/namespaces/default/services", &service).await;
    assert_eq!(
        text(said(&cluster, &to("hook", 444), 1000).await),
        "Post \"https://hook.default.svc:444/ok?timeout=1s\": no service port 444 found for service \"hook\""
    );
    assert_eq!(text(said(&cluster, &to("hook", 443), 1000).await), format!("{}no endpoints available for service \"hook\"", url("hook")));
    // Anybody may write slices: one that leads to this host is passed over.
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}},
        "ports": [{"name": "", "port": server.port}], "endpoints": [{"addresses": ["10.255.255.1"]}]});
    let mut slice = cluster.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    slice["endpoints"][0]["addresses"] = json!(["169.254.169.254"]);
    // Validation refuses such addresses as well; deletion and creation is how they would come.
    let refused = cluster.ask("PUT", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/hook", &slice).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(server.calls().is_empty());
    cluster.end().await;
}

#[tokio::test]
async fn links_and_this_server_itself_are_not_called() {
    let cluster = Cluster::start().await;
    let own = format!("https://127.0.0.1:{}/", cluster.api.local_addr.port());
    for url in ["https://169.254.169.254/", "https://[fe80::1]/", "https://0.0.0.0:1/", "https://224.0.0.1/", own.as_str()] {
        let to = Endpoint::url_of(url, Trust::Any).unwrap();
        let text = said(&cluster, &to, 1000).await.unwrap_err();
        assert!(text.ends_with(": address not allowed"), "{url}: {text}");
    }
    let to = Endpoint::url_of("https://no.such.host.invalid/", Trust::Any).unwrap();
    let text = said(&cluster, &to, 20_000).await.unwrap_err();
    assert!(text.ends_with("dial tcp: lookup no.such.host.invalid: no such host"), "{text}");
    cluster.end().await;
}
