//! Connections to other servers, over TCP or TLS: used again while they last, and ended with this server.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::idle::{Idle, Key};
use super::tls::Clients;
use crate::error::Result;
use crate::http::RequestBody;
use crate::pki::Pki;
use crate::webhook::texts;

const DIAL: Duration = Duration::from_secs(10);

/// All connections this server has to others.
pub struct Connections {
    pub(super) tls: Clients,
    tracker: TaskTracker,
    cancel: CancellationToken,
    turns: AtomicUsize,
    pub(super) idle: Arc<Idle>,
}

/// One server to talk to.
#[derive(Clone)]
pub struct Backend {
    /// An address, or a name the resolver knows.
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
    /// Whom its certificate must be for; `None`: the host.
    pub server_name: Option<String>,
}

/// Why there is no answer, as Go's client says it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("dial tcp {0}: {1}")]
    Dial(String, String),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connections {
    pub fn new(pki: &Pki, cancel: CancellationToken) -> Result<Self> {
        Ok(Self { tls: Clients::new(pki)?, tracker: TaskTracker::new(), cancel, turns: AtomicUsize::new(0), idle: Arc::default() })
    }

    /// A number that differs from request to request: endpoints take turns.
    pub fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a stream until it ends or the server does.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            tokio::select! { biased;
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Returns when no connection is left; for after the server was cancelled.
    pub async fn close(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Sends a request whose URI is a path.
    pub async fn send(
        &self,
        backend: &Backend,
        mut request: Request<RequestBody>,
    ) -> std::result::Result<Response<Incoming>, BackendError> {
        let key = Key::of(backend);
        while let Some(mut sender) = self.idle.take(&key) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    self.keep(key, sender, backend);
                    return Ok(answer);
                }
                Err(mut unsent) => match unsent.take_message() {
                    // It was closed before anything was written.
                    Some(message) => request = message,
                    None => return Err(unsent.into_error().into()),
                },
            }
        }
        let io = backend.dial().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
        self.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a backend");
            }
        });
        let answer = sender.send_request(request).await?;
        self.keep(key, sender, backend);
        Ok(answer)
    }

    /// The connection waits for another request once this one's answer was read; one that switched protocols never does.
    fn keep(&self, key: Key, mut sender: SendRequest<RequestBody>, backend: &Backend) {
        let (idle, tls) = (self.idle.clone(), backend.tls.clone());
        self.spawn(async move {
            if sender.ready().await.is_ok() {
                idle.put(key, sender, tls);
            }
        });
    }
}

impl Backend {
    pub fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// Connects, with TLS where the backend speaks it.
    pub async fn dial(&self) -> std::result::Result<Box<dyn Io>, BackendError> {
        let failed = |why: String| BackendError::Dial(self.authority(), why);
        let dialled = tokio::time::timeout(DIAL, TcpStream::connect((self.host.as_str(), self.port))).await;
        let tcp = dialled.map_err(|_| failed("i/o timeout".to_owned()))?.map_err(|e| failed(texts::dial(&e)))?;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "nodelay");
        }
        let Some(config) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.server_name.clone().unwrap_or_else(|| self.host.clone()))
            .map_err(|e| BackendError::Tls(format!("tls: {e}")))?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let shaken = tokio::time::timeout(DIAL, connector.connect(name, tcp)).await;
        let tls = shaken.map_err(|_| BackendError::Tls("net/http: TLS handshake timeout".to_owned()))?;
        Ok(Box::new(tls.map_err(|e| BackendError::Tls(texts::handshake(&e)))?))
    }
}
