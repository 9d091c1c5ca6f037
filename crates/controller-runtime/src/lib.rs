//! Runs controllers: informers feed work queues, a key at a time goes through its controller's `reconcile`, the actions
//! are executed in order. kube-controller-manager, in process or remote.
//!
//! The rule that everything here serves: a controller never acts on a cache that has not seen its own last writes for
//! that key. A key stays with its worker until the informers show what was written.

mod caches;
mod execute;
mod garbage;
mod meter;
mod namespaces;
mod queue;
mod trimmed;
mod worker;

use std::sync::Arc;

use client::{Client, Clock, Election, Entropy, EventRecorder, Informers, Leadership, Registry};
use controllers::TABLE;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use caches::Caches;

/// How to run the controllers.
#[derive(Clone, Debug)]
pub struct Config {
    pub controllers: controllers::Config,
    pub clock: Clock,
    pub entropy: Entropy,
    /// Keys that one controller works on at a time.
    pub workers: usize,
    /// Run only while holding this lease.
    pub election: Option<Election>,
    /// Controllers not to run, by name.
    pub disabled: Vec<String>,
    /// Informers to share with other components of this process.
    pub informers: Option<Informers>,
    /// Where the queues are counted.
    pub metrics: Option<Arc<Registry>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: controllers::Config::default(),
            clock: Clock::System,
            entropy: Entropy::from_system(),
            workers: 8,
            election: None,
            disabled: Vec::new(),
            informers: None,
            metrics: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("lost the lease {0}: another controller manager leads now")]
    LostLease(String),
    #[error("informers: {0}")]
    Informers(#[from] client::Error),
    #[error("a controller stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The identity of the manager itself: for informers, discovery and the lease.
pub const MANAGER: &str = controllers::MANAGER;

/// The ServiceAccounts in kube-system that controllers act as.
pub fn identities() -> Vec<&'static str> {
    let own = TABLE.iter().map(|c| c.identity).chain([namespaces::NAME, garbage::NAME]);
    let mut all: Vec<&str> = own.filter(|name| *name != MANAGER).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Runs every controller of the table.
#[derive(Debug)]
pub struct ControllerManager;

impl ControllerManager {
    /// Runs until cancelled or the lease is lost. `client_for` makes the client that acts as a controller, by its name
    /// (the ServiceAccount `kube-system/IDENTITY`), or as [`MANAGER`] itself.
    pub async fn run(config: Config, client_for: impl Fn(&str) -> Client, cancel: CancellationToken) -> Result<(), Error> {
        let Some(election) = config.election.clone() else { return run_all(config, &client_for, cancel).await };
        let name = election.name.clone();
        let mut leadership = Leadership::new(client_for(MANAGER), election, config.clock.clone(), config.entropy.clone());
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = leadership.acquire() => {}
        }
        let inner = cancel.child_token();
        let ended = tokio::select! {
            biased;
            ended = run_all(config, &client_for, inner.clone()) => ended,
            () = leadership.hold() => Err(Error::LostLease(name)),
        };
        inner.cancel();
        if let (true, Err(error)) = (ended.is_ok(), leadership.release().await) {
            tracing::warn!(%error, "the lease was not released; it runs out by itself");
        }
        ended
    }
}

async fn run_all(mut config: Config, client_for: &impl Fn(&str) -> Client, cancel: CancellationToken) -> Result<(), Error> {
    let informers = config.informers.clone().unwrap_or_else(|| Informers::with_entropy(client_for(MANAGER), config.entropy.clone()));
    let caches = Arc::new(Caches::new(&informers));
    config.controllers.started_at = config.clock.now();
    let config = Arc::new(config);
    let counts: Arc<garbage::Counts> = Arc::default();
    let mut tasks = JoinSet::new();
    let enabled = |name: &str| !config.disabled.iter().any(|disabled| disabled == name);
    let recorder = |identity: &str, component: &str| EventRecorder::legacy(client_for(identity), component, "", config.clock.clone());
    for controller in TABLE.iter().filter(|controller| enabled(controller.name)) {
        let executor = execute::Executor::new(client_for(controller.identity), recorder(controller.identity, controller.component));
        let span = tracing::info_span!("controller", name = controller.name);
        let run = worker::run(controller, caches.clone(), executor, config.clone(), counts.clone(), cancel.clone());
        tasks.spawn(run.instrument(span));
    }
    if enabled(namespaces::NAME) {
        let executor = execute::Executor::new(client_for(namespaces::NAME), recorder(namespaces::NAME, namespaces::NAME));
        tasks.spawn(namespaces::run(caches.clone(), executor, config.clone(), cancel.clone()));
    }
    if enabled(garbage::NAME) {
        let executor = execute::Executor::new(client_for(garbage::NAME), recorder(garbage::NAME, "garbage-collector-controller"));
        tasks.spawn(garbage::run(informers, executor, config.clone(), counts, cancel.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
        if !cancel.is_cancelled() {
            tracing::error!("a controller ended by itself");
        }
    }
    Ok(())
}
