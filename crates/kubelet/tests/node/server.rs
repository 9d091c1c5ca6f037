//! The HTTPS server: who may, logs, reports, and streams passed through to the runtime.

use std::sync::Arc;

use kubelet::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::Cluster;

struct Caller {
    port: u16,
    tls: tokio_rustls::TlsConnector,
}

impl Caller {
    fn new(c: &Cluster, port: u16, identity: Option<(&str, &[&str])>) -> Caller {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(c.api.ca().as_bytes()) {
            roots.add(ca.unwrap()).unwrap();
        }
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((user, groups)) => {
                let made = c.api.pki().client(user, user, groups).unwrap();
                let chain = CertificateDer::pem_slice_iter(made.cert_pem.as_bytes()).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(made.key_pem.as_bytes()).unwrap()).unwrap()
            }
        };
        Caller { port, tls: Arc::new(config).into() }
    }

    async fn send(&self, head: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut tls = self.tls.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap();
        tls.write_all(head.as_bytes()).await.unwrap();
        tls
    }

    /// Status line and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut tls = self.send(&format!("GET {path} HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n")).await;
        let mut bytes = Vec::new();
        tls.read_to_end(&mut bytes).await.ok();
        let text = String::from_utf8(bytes).unwrap();
        let code = text.split(' ').nth(1).unwrap().parse().unwrap();
        (code, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

async fn serving() -> (Cluster, u16) {
    let mut c = Cluster::start(true).await;
    c.node().await;
    c.stop_kubelet().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let made = c.api.pki().serving("kubelet-n1", "system:node:n1", &["system:nodes"], &["127.0.0.1".to_owned()]).unwrap();
    c.serve(ServerConfig {
        address,
        certificate_pem: made.cert_pem,
        key_pem: made.key_pem,
        client_ca_pem: c.api.ca().to_owned(),
        authorize: Arc::new(|r| Box::pin(async move { r.user == "root" || (r.user == "reader" && r.subresources.contains(&"stats")) })),
    });
    c.start_kubelet();
    trial::found("the server listens", || async { TcpStream::connect(address).await.ok() }).await;
    (c, address.port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_logs_and_reports() {
    let (mut c, port) = serving().await;
    c.pod("p", json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
    c.running("p").await;
    let nobody = Caller::new(&c, port, None);
    assert_eq!(nobody.get("/pods").await, (401, "Unauthorized".to_owned()));
    let reader = Caller::new(&c, port, Some(("reader", &[])));
    let (code, text) = reader.get("/containerLogs/default/p/a").await;
    assert_eq!((code, text.as_str()), (403, "Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[proxy])\n"));
    let summary: Value = serde_json::from_str(&reader.get("/stats/summary").await.1).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "p");
    let root = Caller::new(&c, port, Some(("root", &[])));
    assert_eq!(root.get("/healthz").await, (200, "ok".to_owned()));
    assert!(root.get("/containerLogs/default/p/a").await.1.contains("hello\n"));
    assert!(root.get("/containerLogs/default/p/a?timestamps=true").await.1.contains("2026-01-01T00:00:00Z hello\n"));
    let (code, text) = root.get("/containerLogs/default/p/a?previous=true").await;
    assert_eq!((code, text.as_str()), (400, "previous terminated container \"a\" in pod \"p\" not found"));
    assert_eq!(root.get("/containerLogs/default/p/none").await.0, 404);
    assert_eq!(root.get("/containerLogs/default/p/a?tailLines=x").await.0, 422);
    let pods: Value = serde_json::from_str(&root.get("/pods").await.1).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let running: Value = serde_json::from_str(&root.get("/runningpods/").await.1).unwrap();
    assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "a");
    assert!(
        root.get("/metrics/resource")
            .await
            .1
            .contains("container_cpu_usage_seconds_total{container=\"a\",namespace=\"default\",pod=\"p\"} 2\n")
    );
    assert!(root.get("/metrics").await.1.contains("kubelet_running_pods 1\n"));
    assert_eq!(root.get("/nothing").await.0, 404);
    assert!(root.get("/configz").await.1.contains("KubeletConfiguration"));
    c.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_pass_through() {
    let (mut c, port) = serving().await;
    c.pod("p", json!({"containers": [{"name": "a", "image": "skiff/hello", "imagePullPolicy": "Never"}]})).await;
    c.running("p").await;
    // A runtime's streaming server that switches protocols and echoes.
    let streaming = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = streaming.local_addr().unwrap();
    c.fake.state.lock().unwrap().streaming_url = format!("http://{at}/exec/token");
    let echo = tokio::spawn(async move {
        let (mut s, _) = streaming.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(s.read_u8().await.unwrap());
        }
        s.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n").await.unwrap();
        let mut five = [0u8; 5];
        s.read_exact(&mut five).await.unwrap();
        s.write_all(&five).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let root = Caller::new(&c, port, Some(("root", &[])));
    let head = "GET /exec/default/p/a?command=echo&command=a%20b&input=1&output=1 HTTP/1.1\r\nhost: n1\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n";
    let mut tls = root.send(head).await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tls.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    tls.write_all(b"12345").await.unwrap();
    let mut back = [0u8; 5];
    tls.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"12345");
    let seen = echo.await.unwrap().to_lowercase();
    assert!(seen.starts_with("get /exec/token http/1.1\r\n") && seen.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{seen}");
    assert_eq!(c.fake.state.lock().unwrap().execs, [vec!["echo".to_owned(), "a b".to_owned()]]);
    c.stop_kubelet().await;
}
