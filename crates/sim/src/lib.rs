//! A whole control plane in one thread: API server over the in-memory store, controllers, scheduler and hollow nodes, with
//! paused time and seeded randomness. Nodes fail and requests get lost while a Deployment rolls out; invariants are checked
//! all along, and in the end everything must be as asked for. The same seed gives the same run.

mod farewell;
mod faults;
mod invariants;
mod node;
mod user;
mod workloads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apiserver::{Handle, Server};
use auth::User;
use client::{Client, Clock, Entropy, Informers};
use controller_runtime::{ControllerManager, MANAGER};
use k8s_openapi::jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use faults::Faults;

/// The moment at which every simulation begins.
const EPOCH_SECOND: i64 = 1_790_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub nodes: usize,
    /// Simulated time with faults.
    pub minutes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("setting up: {0}")]
    Setup(String),
    #[error("after {at_seconds} s: {what}\n  last events:\n    {}", .recent.join("\n    "))]
    Violation { at_seconds: u64, what: String, recent: Vec<String> },
}

/// What happened, in order.
#[derive(Debug, Default)]
pub struct Report {
    pub trace: Vec<String>,
    pub faults: u64,
}

impl Report {
    /// FNV-1a of the trace: equal for equal runs.
    pub fn hash(&self) -> u64 {
        let bytes = self.trace.iter().flat_map(|line| line.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// What the parts of a simulation share.
#[derive(Clone)]
pub(crate) struct World {
    pub handle: Arc<Handle>,
    pub clock: Clock,
    pub entropy: Entropy,
    pub faults: Faults,
    pub cancel: CancellationToken,
    pub node_failures: Arc<AtomicU64>,
}

impl World {
    /// A client whose requests may get lost.
    pub fn client(&self, user: User) -> Client {
        client::in_process(self.faults.wrap(self.handle.service_as(user)))
    }

    /// A client that always works.
    pub fn sure_client(&self) -> Client {
        client::in_process(self.handle.service())
    }
}

/// One simulation.
pub fn run(options: Options) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| Error::Setup(error.to_string()))?;
    runtime.block_on(simulate(options))
}

async fn simulate(options: Options) -> Result<Report, Error> {
    let epoch = Timestamp::from_second(EPOCH_SECOND).map_err(|error| Error::Setup(error.to_string()))?;
    let clock = Clock::starting_at(epoch);
    let object_clock = clock.clone();
    apiserver::simulate(options.seed, move || object_clock.now());
    let dir = tempfile::tempdir().map_err(|error| Error::Setup(error.to_string()))?;
    let mut config = apiserver::Config::new(dir.path());
    config.bind_address = std::net::IpAddr::from([127, 0, 0, 1]);
    config.secure_port = 0;
    config.advertise_address = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    let store = Arc::new(store::Embedded::in_memory());
    let handle = Server::start(config, store.clone()).await.map_err(|error| Error::Setup(error.to_string()))?;
    let entropy = Entropy::from_seed(options.seed);
    let world = World {
        handle: Arc::new(handle),
        clock,
        faults: Faults::new(Entropy::from_seed(options.seed ^ 0xfa17)),
        entropy,
        cancel: CancellationToken::new(),
        node_failures: Arc::default(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { store.keep_time().await });
    start_components(&world, &mut tasks);
    for number in 0..options.nodes {
        tasks.spawn(node::run(world.clone(), number));
    }
    let result = user::drive(&world, options).await;
    world.cancel.cancel();
    tasks.shutdown().await;
    let faults = world.faults.count() + world.node_failures.load(Ordering::Relaxed);
    if let Ok(handle) = Arc::try_unwrap(world.handle) {
        handle.shutdown().await;
    }
    result.map(|trace| Report { trace, faults })
}

fn start_components(world: &World, tasks: &mut JoinSet<()>) {
    let manager = controller_runtime::Config {
        clock: world.clock.clone(),
        entropy: world.entropy.clone(),
        controllers: controllers::Config { root_ca: "certificate".to_owned(), ..controllers::Config::default() },
        ..controller_runtime::Config::default()
    };
    let (clients, cancel) = (world.clone(), world.cancel.clone());
    tasks.spawn(async move {
        let client_for = |name: &str| {
            let user =
                if name == MANAGER { User::new("system:kube-controller-manager", &[]) } else { User::service_account("kube-system", name) };
            clients.client(user)
        };
        if let Err(error) = ControllerManager::run(manager, client_for, cancel).await {
            eprintln!("the controller manager ended: {error}");
        }
    });
    let config = scheduler::Config { clock: world.clock.clone(), entropy: world.entropy.clone(), ..scheduler::Config::default() };
    let client = world.client(User::new("system:kube-scheduler", &[]));
    let (informers, cancel) = (Informers::with_entropy(client.clone(), world.entropy.clone()), world.cancel.clone());
    tasks.spawn(async move {
        if let Err(error) = scheduler::run(config, client, &informers, cancel).await {
            eprintln!("the scheduler ended: {error}");
        }
    });
}

/// Sleeps for a random time up to a limit.
pub(crate) async fn dawdle(entropy: &Entropy, limit_ms: u64) {
    tokio::time::sleep(Duration::from_millis(1 + entropy.below(limit_ms))).await;
}
