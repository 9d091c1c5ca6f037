//! What a component other than the API server tells of itself over HTTPS: its health to everybody, its metrics to whom the API
//! server lets see them. Called by the roles and by the daemon, for controllers and scheduler.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use client::{Client, Registry};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);

/// One component.
pub struct Component {
    /// Paths that tell its health: to everybody, as upstream's `--authorization-always-allow-paths`.
    pub health: &'static [&'static str],
    pub registry: Arc<Registry>,
    /// What it runs with, as `/configz` shows it.
    pub config: serde_json::Value,
    /// Asks whose a token is, and who may see what.
    pub client: Client,
}

/// A registry of what every component counts, and its own.
pub fn counts(own: &[&'static telemetry::metrics::Desc]) -> Arc<Registry> {
    Arc::new(Registry::new(&[client::metrics::ALL, own]))
}

/// Upstream's.
pub const CONTROLLER_MANAGER_PORT: u16 = 10257;
pub const SCHEDULER_PORT: u16 = 10259;
pub const CONTROLLER_MANAGER_HEALTH: &[&str] = &["/healthz"];
pub const SCHEDULER_HEALTH: &[&str] = &["/healthz", "/livez", "/readyz"];

/// A component's port, taken.
pub struct Serving {
    component: Component,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// How it is reached.
pub struct Secure<'a> {
    pub address: SocketAddr,
    pub certificate_pem: &'a str,
    pub key_pem: &'a str,
    /// Whose client certificates are believed; empty: nobody's.
    pub client_ca_pem: &'a str,
}

impl Serving {
    pub async fn bind(component: Component, secure: &Secure<'_>) -> Result<Self> {
        let tls = kubelet::identity::tls(secure.certificate_pem, secure.key_pem, secure.client_ca_pem)?;
        let listener = TcpListener::bind(secure.address).await.with_context(|| format!("listening on {}", secure.address))?;
        Ok(Self { component, listener, acceptor: TlsAcceptor::from(Arc::new(tls)) })
    }

    #[cfg(test)]
    fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |a| a.port())
    }

    /// Serves until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let component = Arc::new(self.component);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! { biased;
                () = cancel.cancelled() => return,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                        connections.spawn(connection(self.acceptor.clone(), stream, component.clone()));
                    }
                    Ok(_) => tracing::warn!("too many connections: one was closed"),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, component: Arc<Component>) {
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return,
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
    let caller = certificate.and_then(|der| kubelet::identity::of_certificate(&der));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (component, caller) = (component.clone(), caller.clone());
        async move { Ok::<_, Infallible>(component.answer(&request, caller).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).serve_connection(TokioIo::new(tls), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "connection");
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

impl Component {
    async fn answer(&self, request: &Request<Incoming>, caller: Option<kubelet::identity::Caller>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if self.health.contains(&path) {
            return text(StatusCode::OK, "ok");
        }
        if let Err(refusal) = self.permitted(request, caller).await {
            return refusal;
        }
        match path {
            "/metrics" => {
                let mut answer = text(StatusCode::OK, self.registry.text());
                let exposition = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
                answer.headers_mut().insert(http::header::CONTENT_TYPE, exposition);
                answer
            }
            "/configz" => {
                let mut answer = text(StatusCode::OK, self.config.to_string());
                answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                answer
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    async fn permitted(&self, request: &Request<Incoming>, caller: Option<kubelet::identity::Caller>) -> Result<(), Response<Full<Bytes>>> {
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let caller = match (caller, header) {
            (Some(caller), _) => caller,
            (None, Some(header)) => {
                let known = match header.strip_prefix("Bearer ") {
                    Some(token) => kubelet::identity::of_token(&self.client, token).await,
                    None => None,
                };
                known.ok_or_else(|| text(StatusCode::UNAUTHORIZED, "Unauthorized\n"))?
            }
            (None, None) => ("system:anonymous".to_owned(), vec!["system:unauthenticated".to_owned()]),
        };
        let (path, verb) = (request.uri().path(), request.method().as_str().to_lowercase());
        let (user, groups) = caller;
        let attributes = serde_json::json!({ "verb": verb, "path": path });
        let spec = serde_json::json!({ "user": user, "groups": groups, "nonResourceAttributes": attributes });
        match crate::review::is_allowed(&self.client, &spec).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(text(StatusCode::FORBIDDEN, format!("forbidden: User {user:?} cannot {verb} path {path:?}\n"))),
            Err(error) => {
                tracing::warn!("a request could not be reviewed: {error:#}");
                Err(text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error: the request could not be reviewed\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An API server that knows one token, whose user may see everything.
    async fn reviews(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        use http_body_util::BodyExt as _;
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut object: serde_json::Value = serde_json::from_slice(&body).unwrap();
        object["status"] = if path.ends_with("tokenreviews") {
            let known = object["spec"]["token"] == "secret";
            serde_json::json!({ "authenticated": known, "user": { "username": "prometheus" } })
        } else {
            serde_json::json!({ "allowed": object["spec"]["user"] == "prometheus" })
        };
        Ok(Response::builder().status(201).body(Body::from(object.to_string().into_bytes())).unwrap())
    }

    async fn get(port: u16, certificate_pem: &str, path: &str, token: &str) -> String {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut io = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The other side does not say goodbye.
        io.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn health_is_for_all_and_metrics_for_whom_the_api_server_says() {
        let registry = Arc::new(Registry::new(&[client::metrics::ALL]));
        registry.count(&client::metrics::QUEUE_ADDS, &["deployment"]);
        let client = client::in_process(tower::service_fn(reviews));
        let component = Component { health: SCHEDULER_HEALTH, registry, config: serde_json::json!({"a": 1}), client };
        let identity = apiserver::pki::Identity::self_signed("test", &["localhost".to_owned()]).unwrap();
        let secure = Secure {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate_pem: &identity.cert_pem,
            key_pem: &identity.key_pem,
            client_ca_pem: "",
        };
        let serving = Serving::bind(component, &secure).await.unwrap();
        let (port, cancel) = (serving.port(), CancellationToken::new());
        let get = |path, token| get(port, &identity.cert_pem, path, token);
        let running = tokio::spawn(serving.run(cancel.clone()));
        assert!(get("/livez", "").await.ends_with("\r\n\r\nok"));
        assert!(get("/metrics", "").await.contains("403 Forbidden"));
        assert!(get("/metrics", "wrong").await.contains("401 Unauthorized"));
        assert!(get("/metrics", "secret").await.contains("\nworkqueue_adds_total{name=\"deployment\"} 1\n"));
        assert!(get("/configz", "").await.contains("403 Forbidden"));
        assert!(get("/configz", "secret").await.ends_with("\r\n\r\n{\"a\":1}"));
        assert!(get("/else", "secret").await.contains("404 Not Found"));
        cancel.cancel();
        running.await.unwrap();
    }
}
