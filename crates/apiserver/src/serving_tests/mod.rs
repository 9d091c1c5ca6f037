//! How the server serves, tried over real sockets: flow control, limits, health, metrics, stopping, hostile traffic.

mod audit;
mod browsers;
mod documents;
mod drain;
mod encryption;
mod failed_store;
mod flow;
mod health;
mod hostile;
mod keys;
mod tracing;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;

use crate::{Config, Handle, Server, tls};

pub struct Cluster {
    pub api: Handle,
    _dir: tempfile::TempDir,
}

pub struct Said {
    pub code: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// Who asks, by client certificate.
pub enum As<'a> {
    Admin,
    Nobody,
    User(&'a str, &'a [&'a str]),
}

impl Cluster {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Arc::new(store::Embedded::in_memory()), change).await
    }

    pub async fn start_on(store: Arc<dyn store::Store>, change: impl FnOnce(&mut Config)) -> Self {
        let (dir, config) = crate::testing::config(change);
        Self { api: Server::start(config, store).await.unwrap(), _dir: dir }
    }

    pub async fn tls(&self, who: As<'_>, alpn: &str) -> TlsStream<TcpStream> {
        let identity = match who {
            As::Admin => Some(self.api.pki().issue_client("admin", &["system:masters"]).unwrap()),
            As::Nobody => None,
            As::User(name, groups) => Some(self.api.pki().issue_client(name, groups).unwrap()),
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.api.pki().ca.der().unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let (chain, key) = identity.to_rustls().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let tcp = TcpStream::connect(self.api.local_addr).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap()
    }

    /// A connection to send requests over, HTTP/2.
    pub async fn client(&self, who: As<'_>) -> Client {
        let io = TokioIo::new(self.tls(who, "h2").await);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Client(sender)
    }

    /// In process, as the server itself.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Said {
        let body = if body.is_null() { Full::default() } else { Full::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body).unwrap();
        said(self.api.service().oneshot(request).await.unwrap()).await
    }

    pub async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let said = self.ask(method, path, body).await;
        assert!(said.code < 300, "{method} {path}: {}", said.text);
        said.json()
    }

    pub async fn metrics(&self) -> String {
        self.ask("GET", "/metrics", json!(null)).await.text
    }

    pub async fn end(self) {
        self.api.shutdown().await;
    }
}

#[derive(Clone)]
pub struct Client(hyper::client::conn::http2::SendRequest<Full<Bytes>>);

impl Client {
    pub async fn get(&self, path: &str) -> Said {
        self.send("GET", path, "", Bytes::new()).await.unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: Bytes) -> hyper::Result<Said> {
        let mut request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = self.0.clone().send_request(request.body(Full::from(body)).unwrap()).await?;
        let (parts, body) = answer.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok(Said { code: parts.status.as_u16(), headers: parts.headers, text })
    }

    /// The answer as soon as its headers are there.
    pub async fn begin(&self, path: &str) -> http::Response<hyper::body::Incoming> {
        let request = Request::builder().uri(format!("https://127.0.0.1{path}")).body(Full::default()).unwrap();
        self.0.clone().send_request(request).await.unwrap()
    }
}

pub async fn said<B: http_body::Body>(answer: http::Response<B>) -> Said
where
    B::Error: std::fmt::Debug,
{
    let (parts, body) = answer.into_parts();
    let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
    Said { code: parts.status.as_u16(), headers: parts.headers, text }
}

/// A store that can be made to wait.
pub struct Slow {
    pub inner: store::Embedded,
    pub gate: tokio::sync::watch::Sender<bool>,
}

impl Slow {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { inner: store::Embedded::in_memory(), gate: tokio::sync::watch::Sender::new(true) })
    }

    async fn pass(&self, key: &str) {
        if key.contains("/configmaps/") && key.ends_with("/slow") {
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.unwrap();
        }
    }
}

#[async_trait::async_trait]
impl store::Store for Slow {
    async fn get(&self, key: &str) -> store::Result<(store::Revision, Option<store::KeyValue>)> {
        self.pass(key).await;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str, options: store::ListOptions) -> store::Result<store::Listing> {
        self.inner.list(prefix, options).await
    }

    async fn write(&self, op: store::Op) -> store::Result<(store::Revision, Option<store::KeyValue>)> {
        let (store::Op::Put { key, .. } | store::Op::Delete { key, .. }) = &op;
        self.pass(key).await;
        self.inner.write(op).await
    }

    async fn watch(&self, prefix: &str, after: store::Revision) -> store::Result<store::WatchStream> {
        self.inner.watch(prefix, after).await
    }

    async fn revision(&self) -> store::Result<store::Revision> {
        self.inner.revision().await
    }

    async fn freshness(&self, prefix: &str) -> store::Result<store::Freshness> {
        self.inner.freshness(prefix).await
    }

    async fn compact(&self, revision: store::Revision) -> store::Result<()> {
        self.inner.compact(revision).await
    }
}
