//! What tests of calls to other servers share: a running API server, and HTTPS servers with a CA of their own. Tests only.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::pki::{Pki, Usage};
use crate::{Config, Handle, Server, tls};

/// An API server on a free port, with an empty store.
pub struct Cluster {
    pub api: Handle,
    _dir: tempfile::TempDir,
}

/// What came back of a request.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The message of a Status.
    pub fn message(&self) -> &str {
        machinery::object::str_at(&self.body, "message")
    }

    pub fn warnings(&self) -> Vec<String> {
        let all = self.headers.get_all("warning").iter();
        all.filter_map(|w| w.to_str().ok()?.strip_prefix("299 - ").map(|t| t.trim_matches('"').to_owned())).collect()
    }
}

/// Of a server on a free port of loopback, whose keys are in a directory that goes when it is dropped.
pub fn config(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path().join("pki"));
    config.bind_address = [127, 0, 0, 1].into();
    config.secure_port = 0;
    config.disable_admission_plugins = vec!["ServiceAccount".to_owned()];
    change(&mut config);
    (dir, config)
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Arc::new(store::Embedded::in_memory()), change).await
    }

    /// One of several servers of a store.
    pub async fn over(store: Arc<dyn store::Store>) -> Self {
        Self::start_on(store, |_| {}).await
    }

    async fn start_on(store: Arc<dyn store::Store>, change: impl FnOnce(&mut Config)) -> Self {
        let (dir, config) = config(change);
        Self { api: Server::start(config, store).await.unwrap(), _dir: dir }
    }

    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask_as(method, path, "application/json", body).await
    }

    pub async fn ask_as(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.send(request.body(Full::from(text)).unwrap()).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = self.api.service().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Asks for something that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!(answer.code < 300, "{method} {path}: {}", answer.body);
        answer.body
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &Value::Null).await
    }

    /// A TLS connection as the user `admin`, who may everything.
    pub async fn connect(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let admin = self.api.pki().issue_client("admin", &["system:masters"]).unwrap();
        let (chain, key) = admin.to_rustls().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.api.pki().ca.der().unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
        let tcp = tokio::net::TcpStream::connect(self.api.local_addr).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    pub async fn end(self) {
        self.api.shutdown().await;
    }
}

/// What a test server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Value,
    /// Common name of the client's certificate.
    pub client: String,
}

type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

/// An HTTPS server with a CA of its own.
pub struct HttpsServer {
    pub port: u16,
    pub ca_pem: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    _work: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl HttpsServer {
    /// Serves with a certificate for these names.
    pub async fn start<F>(names: &[&str], handler: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let identity = pki.ca.issue("server", &[], &names, Usage::Server).unwrap();
        let mut config = tls::server_config(&identity, tls::verifier([pki.ca.der().unwrap()]).unwrap()).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let handler: Handler = Arc::new(move |asked| Box::pin(handler(asked)));
        let mut work = JoinSet::new();
        work.spawn(accept(listener, tokio_rustls::TlsAcceptor::from(Arc::new(config)), handler, asked.clone()));
        Self { port, ca_pem: pki.ca_pem().to_owned(), asked, _work: work, _dir: dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.ca_pem)
    }

    pub fn calls(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn take_calls(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, handler: Handler, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, handler, asked) = (acceptor.clone(), handler.clone(), asked.clone());
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else { return };
            let leaf = tls.get_ref().1.peer_certificates().and_then(|c| c.first()).cloned();
            let client = leaf.and_then(|leaf| crate::authn::x509::user_of(&leaf.into_owned())).map(|u| u.name).unwrap_or_default();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (handler, asked, client) = (handler.clone(), asked.clone(), client.clone());
                async move { Ok::<_, std::convert::Infallible>(serve(request, client, handler, asked).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades();
            if let Err(e) = serving.await {
                tracing::debug!(error = %e, "a test connection");
            }
        });
    }
}

async fn serve(mut request: Request<Incoming>, client: String, handler: Handler, log: Arc<Mutex<Vec<Asked>>>) -> Response<Full<Bytes>> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        client,
    };
    log.lock().unwrap().push(asked.clone());
    if let Some(upgrade) = upgrade {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            tokio::io::copy(&mut from, &mut to).await.unwrap_or_default();
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", asked.headers["upgrade"].clone());
        return response;
    }
    handler(asked).await
}

/// A JSON answer.
pub fn json_response(code: u16, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

pub fn text_response(code: u16, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    response
}
