//! Starting and stopping: PKI, state, listener, connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth::User;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{Hooks, Plugins};
use crate::authn::{Authenticators, Origin, Peer};
use crate::authz::Authorizer;
use crate::cache::{Caches, Limits};
use crate::error::{Error, Result};
use crate::http::body::boxed;
use crate::in_process::InProcess;
use crate::metrics::Metrics;
use crate::pki::Pki;
use crate::registry::Registry;
use crate::state::Api;
use crate::{Config, bootstrap, chain, connect, tls};

/// How long open connections may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(10);

pub struct Server;

/// A running server.
pub struct Handle {
    pub local_addr: SocketAddr,
    api: Arc<Api>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Listens, makes what every cluster has, and serves until [`Handle::shutdown`]. Ready when this returns.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Handle> {
        let dir = config.pki_dir.clone();
        let keys = config.authentication.service_account.clone();
        let open = move || Pki::open(&dir)?.with_keys(keys.signing_key_file.as_deref(), &keys.key_files);
        let opened = tokio::task::spawn_blocking(open).await;
        let pki = Arc::new(opened.map_err(|e| Error::Tls(e.to_string()))??);
        let address = SocketAddr::new(config.bind_address, config.secure_port);
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let local_addr = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let acceptor = acceptor(&config, &pki)?;
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let api = Arc::new(state(config, store, pki, local_addr.port(), &mut tasks, &cancel).await?);
        tasks.spawn(accept(listener, acceptor, api.clone(), cancel.clone()));
        bootstrap::run(&api, &mut tasks, &cancel).await?;
        api.start_caches();
        api.ready.store(true, Ordering::Release);
        Ok(Handle { local_addr, api, cancel, tasks })
    }
}

async fn state(
    config: Config,
    store: Arc<dyn Store>,
    pki: Arc<Pki>,
    port: u16,
    tasks: &mut JoinSet<()>,
    cancel: &CancellationToken,
) -> Result<Api> {
    let registry = Registry::default();
    let authn = Authenticators::new(&config, &pki)?;
    let authorizer = Authorizer::start(&store, &registry, tasks, cancel).await?;
    Ok(Api {
        connections: connect::Connections::new(&pki, cancel.clone())?,
        webhooks: crate::webhook::Pool::default(),
        hooks: Hooks::start(&store, &registry, tasks, cancel).await?,
        plugins: Plugins::new(&config),
        caches: Caches::new(store.clone(), Limits::default(), cancel.clone()),
        config,
        store,
        pki,
        registry,
        authn,
        authorizer,
        metrics: Metrics::default(),
        port,
        ready: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    })
}

fn acceptor(config: &Config, pki: &Pki) -> Result<TlsAcceptor> {
    let mut sans: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
            .map(str::to_owned)
            .to_vec();
    sans.extend(["127.0.0.1".to_owned(), "::1".to_owned(), config.advertised().to_string()]);
    for range in &config.service_cluster_ip_ranges {
        let range = crate::net::Cidr::parse(range).map_err(Error::Config)?;
        sans.extend(range.nth(1).map(|ip: IpAddr| ip.to_string()));
    }
    sans.extend(config.extra_sans.iter().cloned());
    sans.sort();
    sans.dedup();
    let identity = pki.serving("apiserver", "kube-apiserver", &[], &sans)?;
    let config = tls::server_config(&identity, tls::verifier([pki.ca.der()?])?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "a connection's task failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(connection(stream, from, acceptor.clone(), api.clone(), cancel.clone()));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, acceptor: TlsAcceptor, api: Arc<Api>, cancel: CancellationToken) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "nodelay");
    }
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return tracing::debug!(%from, error = %e, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%from, "TLS handshake timed out"),
    };
    let certificates = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let origin = Origin::Network(Arc::new(Peer::new(certificates, Some(from))));
    serve_io(TokioIo::new(tls), api, origin, cancel).await;
}

/// Serves HTTP/1.1 or HTTP/2 on a connection until it ends.
pub(crate) async fn serve_io<I>(io: I, api: Arc<Api>, origin: Origin, cancel: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (api, origin) = (api.clone(), origin.clone());
        async move { Ok::<_, std::convert::Infallible>(chain::handle(api, request.map(boxed), origin).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(32));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = builder.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! { biased;
            () = cancel.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    tracing::debug!(error = %e, "a connection ended");
                }
                return;
            }
        }
    }
}

impl Handle {
    /// The server itself as a service, as the all-powerful `system:apiserver`.
    pub fn service(&self) -> InProcess {
        self.service_as(User::apiserver())
    }

    /// The server as a service for one in-process component. The whole chain applies to its identity.
    pub fn service_as(&self, user: User) -> InProcess {
        InProcess::new(self.api.clone(), user)
    }

    pub fn pki(&self) -> &Arc<Pki> {
        &self.api.pki
    }

    /// PEM of the cluster CA.
    pub fn ca(&self) -> &str {
        self.api.pki.ca_pem()
    }

    /// `https://127.0.0.1:port`, or the bind address where that is a definite one.
    pub fn url(&self) -> String {
        let ip = if self.local_addr.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.local_addr.ip() };
        format!("https://{}", SocketAddr::new(ip, self.local_addr.port()))
    }

    /// Stops accepting, ends watches, lets requests finish, and returns when all has ended.
    pub async fn shutdown(mut self) {
        self.api.stopping.store(true, Ordering::Release);
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(e) = ended {
                tracing::error!(error = %e, "a task of the API server failed");
            }
        }
        self.api.connections.close().await;
        self.api.caches.ended().await;
    }
}
