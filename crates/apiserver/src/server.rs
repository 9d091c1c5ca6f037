//! Starting and stopping: PKI, state, listener, connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth::User;
use encryption::Encrypted;
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{Hooks, Plugins, Policies};
use crate::aggregation::Aggregation;
use crate::audit::Audit;
use crate::authn::Authenticators;
use crate::authz::Authorizer;
use crate::cache::{Caches, Limits};
use crate::error::{Error, Result};
use crate::flow::{self, Flow};
use crate::in_process::InProcess;
use crate::metrics::{Metrics, table};
use crate::pki::{Missing, Pki};
use crate::registry::Registry;
use crate::state::Api;
use crate::trace::Tracer;
use crate::upstream::Readable;
use crate::{Config, bootstrap, connect, listen, tls};

/// How often a server that stops looks whether requests are left.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// After a key could not be made or written.
const MAKE_KEYS_AGAIN: Duration = Duration::from_secs(1);

pub struct Server;

/// A running server.
pub struct Handle {
    pub local_addr: SocketAddr,
    api: Arc<Api>,
    /// No connection is accepted any more.
    closed: CancellationToken,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Listens, makes what every cluster has, and serves until [`Handle::shutdown`]. Ready when this returns.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Handle> {
        let dir = config.pki_dir.clone();
        let keys = config.authentication.service_account.clone();
        let opened = aside(move || {
            let pki = Pki::open_authorities(&dir)?;
            let missing = pki.open_keys(keys.signing_key_file.as_deref(), &keys.key_files)?;
            Ok::<_, Error>((Arc::new(pki), missing))
        });
        let (pki, missing) = opened.await.map_err(|e| Error::Tls(e.to_string()))??;
        let address = SocketAddr::new(config.bind_address, config.secure_port);
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let local_addr = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        tracing::debug!(%local_addr, "connections are taken; the state is read");
        let acceptor = acceptor(&config, &pki)?;
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(missing) = missing {
            tasks.spawn(make_keys(pki.clone(), missing, cancel.clone()));
        }
        let (audit, pending) = Audit::open(&config.audit)?;
        let (store, encryption) = encrypted(&config, store).await?;
        let metrics = Arc::new(Metrics::default());
        let store = if config.shared_store { Arc::new(Readable::new(store, metrics.clone())) } else { store };
        let tracer = Tracer::open(&config, &mut tasks, &cancel)?;
        let api = Arc::new(state(config, (audit, encryption, tracer, metrics), store, pki, local_addr.port(), &mut tasks, &cancel).await?);
        api.authorizer.attach(&api);
        pending.start(&api, &mut tasks, &cancel);
        keep_encryption(&api, &mut tasks, &cancel);
        let closed = CancellationToken::new();
        tasks.spawn(crate::authn::Issuers::follow(api.clone(), cancel.clone()));
        tasks.spawn(crate::authz::Authorizer::follow(api.clone(), cancel.clone()));
        tasks.spawn(listen::accept(listener, acceptor, api.clone(), closed.clone(), cancel.clone()));
        tracing::debug!("requests are answered; what every cluster has is made");
        bootstrap::run(&api, &mut tasks, &cancel).await?;
        Aggregation::run(&api, &mut tasks, &cancel).await?;
        tracing::debug!("custom resources and flow control start");
        api.start_caches();
        crate::custom::start(&api, &mut tasks, &cancel).await?;
        flow::follow::start(&api, &mut tasks, &cancel).await?;
        api.ready.store(true, Ordering::Release);
        Ok(Handle { local_addr, api, closed, cancel, tasks })
    }
}

/// Makes the key that tokens are signed with, beside a server that is ready without: who wants or shows a token waits, and
/// nobody else. It takes as long as the rest of a start, or three times that.
async fn make_keys(pki: Arc<Pki>, missing: Missing, cancel: CancellationToken) {
    let missing = Arc::new(missing);
    loop {
        let attempt = missing.clone();
        // Not cut short: a server after this one must not find it writing.
        match aside(move || attempt.make()).await {
            Ok(Ok(keys)) => return pki.keep_keys(keys),
            Ok(Err(error)) => tracing::error!(%error, "the key of ServiceAccounts cannot be made; tokens wait for it"),
            Err(error) => tracing::error!(%error, "making the key of ServiceAccounts failed; tokens wait for it"),
        }
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(MAKE_KEYS_AGAIN) => {}
        }
    }
}

type Aside<T> = std::pin::Pin<Box<dyn Future<Output = std::result::Result<T, tokio::task::JoinError>> + Send>>;

/// Work for another thread; for this one in a simulation, which must not depend on when another is ready.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    if crate::identifiers::is_simulated() {
        return Box::pin(std::future::ready(Ok(work())));
    }
    Box::pin(tokio::task::spawn_blocking(work))
}

/// The store as the server sees it: what lies in it may be encrypted.
async fn encrypted(config: &Config, store: Arc<dyn Store>) -> Result<(Arc<dyn Store>, Option<Encrypted>)> {
    let Some(path) = &config.encryption_provider_config else {
        // Where keys are missing, what is encrypted must not be taken for objects.
        let store = if was_encrypted(&store).await? { Arc::new(Encrypted::unread(store)) } else { store };
        return Ok((store, None));
    };
    let bad = |e: encryption::Error| Error::Config(format!("--encryption-provider-config: {e}"));
    let (rules, _) = encryption::read(path).await.map_err(bad)?;
    let store = Encrypted::new(store, rules, Arc::new(crate::registry::group_resource));
    Ok((Arc::new(store.clone()), Some(store)))
}

/// Whether a first object of some kind is encrypted.
async fn was_encrypted(store: &Arc<dyn Store>) -> Result<bool> {
    for row in kinds::table().resources().iter().filter(|r| !r.storage_prefix.is_empty()) {
        let first = store.list(&format!("{}/", row.storage_prefix), store::ListOptions { limit: 1, ..Default::default() }).await?;
        if first.items.iter().any(|item| encryption::is_encrypted(&item.value)) {
            tracing::warn!(resource = row.resource, "stored objects are encrypted, and --encryption-provider-config is not set");
            return Ok(true);
        }
    }
    Ok(false)
}

fn keep_encryption(api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
    let Some((store, path)) = api.encryption.clone().zip(api.config.encryption_provider_config.clone()) else { return };
    let metrics = api.metrics.clone();
    let reloaded = move |good: bool| {
        // There is one server in a process, and no other to tell it from.
        let labels = ["", if good { "success" } else { "failure" }];
        metrics.count(&table::ENCRYPTION_RELOADS, &labels);
        metrics.set(&table::ENCRYPTION_RELOADED, &labels, jiff::Timestamp::now().as_second() as f64);
    };
    tasks.spawn(encryption::watch(store, path, api.config.encryption_reload, reloaded, cancel.clone()));
}

async fn state(
    config: Config,
    (audit, encryption, tracer, metrics): (Audit, Option<Encrypted>, Option<Tracer>, Arc<Metrics>),
    store: Arc<dyn Store>,
    pki: Arc<Pki>,
    port: u16,
    tasks: &mut JoinSet<()>,
    cancel: &CancellationToken,
) -> Result<Api> {
    let registry = Registry::default();
    let authn = Authenticators::new(&config, &pki)?;
    let authorizer = Authorizer::start(&store, &registry, &config.authorization, tasks, cancel).await?;
    Ok(Api {
        decoded: crate::decoded::Decoded::default(),
        connections: connect::Connections::new(&pki, cancel.clone())?,
        webhooks: crate::webhook::Pool::default(),
        companions: std::sync::Mutex::default(),
        aggregation: Aggregation::start(&store, &registry, &pki, tasks, cancel).await?,
        hooks: Hooks::start(&store, &registry, tasks, cancel).await?,
        policies: Policies::start(&store, &registry, tasks, cancel).await?,
        plugins: Plugins::new(&config)?,
        caches: Caches::new(store.clone(), Limits::default(), cancel.clone()),
        flow: Arc::new(Flow::new(&config)),
        browsers: crate::http::browser::Browsers::new(&config)?,
        audit,
        encryption,
        tracer,
        config,
        store,
        pki,
        registry,
        masters: arc_swap::ArcSwap::default(),
        openapi: crate::openapi::custom::Documents::default(),
        discovery: crate::discovery::Documents::default(),
        definitions: crate::custom::Definitions::default(),
        authn,
        authorizer,
        metrics,
        started: std::time::Instant::now(),
        port,
        ready: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        draining: AtomicBool::new(false),
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
    let offer = tls::Offer::new(&config.tls_cipher_suites, &config.tls_min_version)?;
    let config = tls::server_config_of(&offer, &identity, tls::verifier([pki.ca.der()?])?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
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

    /// Ends at once, as a killed process does: nothing is finished and nothing waited for. For simulations.
    pub fn crash(mut self) {
        self.cancel.cancel();
        self.tasks.abort_all();
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Says that a component (`scheduler`, `controller-manager`) runs in this process, so that its health is known.
    pub fn beside(&self, component: &'static str) {
        self.api.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(component);
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

    /// Stops as upstream does: `/readyz` fails at once; after the configured delay no connection and no request is taken any
    /// more; requests finish, as long as they may; then watches and streams end, and this returns when all has.
    pub async fn shutdown(mut self) {
        self.api.stopping.store(true, Ordering::Release);
        if !self.api.config.shutdown_delay.is_zero() {
            tokio::time::sleep(self.api.config.shutdown_delay).await;
        }
        self.closed.cancel();
        self.api.draining.store(true, Ordering::Release);
        let finished = async {
            while self.api.metrics.requests.in_flight() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(self.api.config.request_timeout, finished).await.is_err() {
            tracing::warn!(requests = self.api.metrics.requests.in_flight(), "requests are cut short");
        }
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
