//! A whole control plane in one thread: the API server over the embedded engine on a simulated disk, all controllers, the
//! scheduler and hollow nodes, with paused time and seeded randomness. A user makes and changes things of all kinds while the
//! disk, the store, requests, watches, clocks, nodes and components fail; invariants are checked at every write, and in the
//! end everything must be as asked for, and quiet. The same seed gives the same run.
//!
//! [`crash_points`] is the other way: a fixed story, with a crash after each change that a component makes.

mod chaos;
pub mod crash_points;
mod datastore;
mod faults;
mod fixpoint;
mod hosts;
mod invariants;
mod journal;
mod node;
mod objects;
mod operations;
mod parts;
mod profile;
mod scenarios;
mod server;
mod state;
mod user;
mod wire;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use client::{Clock, Entropy};
use k8s_openapi::jiff::Timestamp;
use store::disk::sim::SimDisk;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use faults::Faults;
use journal::Journal;
pub use journal::Report;
use profile::Profile;
use wire::{CrashPoint, Wire};

/// The moment at which every simulation begins.
const EPOCH_SECOND: i64 = 1_790_000_000;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub nodes: usize,
    /// Simulated time with faults.
    pub minutes: u64,
    /// End at this step.
    pub until: Option<u64>,
    /// Keep all lines of the trace, and the components' requests with them.
    pub trace: bool,
    /// Tell whole what is written to keys with this in them.
    pub show: Option<String>,
}

impl Options {
    pub fn of_seed(seed: u64) -> Self {
        Self { seed, nodes: 4, minutes: 20, until: None, trace: false, show: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("setting up: {0}")]
    Setup(String),
    #[error("at step {}, {} s: {what}\n    {}", .report.steps, .report.virtual_seconds, .report.trace.join("\n    "))]
    Violation { what: String, report: Box<Report> },
}

/// What the parts of a simulation share.
#[derive(Clone)]
pub(crate) struct World {
    pub options: Options,
    pub gateway: server::Gateway,
    pub clock: Clock,
    pub entropy: Entropy,
    pub faults: Faults,
    pub journal: Journal,
    pub parts: parts::Parts,
    pub hosts: hosts::Hosts,
    pub keys: Arc<tempfile::TempDir>,
    crash_point: Arc<Mutex<Option<CrashPoint>>>,
    ended: CancellationToken,
}

impl World {
    fn new(options: Options, profile: Profile) -> Result<Self, Error> {
        let epoch = Timestamp::from_second(EPOCH_SECOND).map_err(|error| Error::Setup(error.to_string()))?;
        let clock = Clock::starting_at(epoch);
        let object_clock = clock.clone();
        let seed = options.seed;
        apiserver::simulate(seed, move || object_clock.now());
        let ended = CancellationToken::new();
        let journal = Journal::new(&options, ended.clone());
        Ok(World {
            options,
            gateway: server::Gateway::default(),
            clock,
            entropy: Entropy::from_seed(seed),
            faults: Faults::new(profile, seed, journal.clone()),
            journal,
            parts: parts::Parts::default(),
            hosts: hosts::Hosts::default(),
            keys: Arc::new(copy_of(&*keys()?)?),
            crash_point: Arc::default(),
            ended,
        })
    }

    /// The client of the cluster's user: it may find the server down, and nothing else is wrong with it.
    pub fn sure_client(&self) -> client::Client {
        client::in_process(Wire::sure(self))
    }

    fn point(&self) -> std::sync::MutexGuard<'_, Option<CrashPoint>> {
        self.crash_point.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills a part when it has made so many more changes.
    pub fn crash_after(&self, part: &'static str, left: u64) {
        *self.point() = Some(CrashPoint { part, left });
    }

    /// Counts a change towards the crash point; kills the part if this was the one.
    pub fn crashes_after_change(&self, part: &str) -> bool {
        let mut point = self.point();
        match point.as_mut().filter(|point| point.part == part) {
            None => false,
            Some(point) if point.left > 0 => {
                point.left -= 1;
                false
            }
            Some(_) => {
                *point = None;
                drop(point);
                self.journal.fault("killed between two actions", part);
                self.parts.kill(part);
                true
            }
        }
    }

    /// Someone takes a node's object away.
    pub async fn delete_node(&self, number: usize) {
        let client = self.sure_client();
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client);
        if let Err(error) = nodes.delete(&format!("node-{number}"), &kube::api::DeleteParams::default()).await {
            self.journal.note(&format!("node-{number} was not deleted: {error}"));
        }
    }

    /// Starts everything.
    async fn start(&self, tasks: &mut JoinSet<()>) -> Result<(), Error> {
        self.gateway.start(self, SimDisk::new(self.options.seed)).await?;
        parts::start(self, tasks);
        for number in 0..self.options.nodes {
            let world = self.clone();
            let run = move |alive| node::run(world.clone(), number, alive);
            tasks.spawn(parts::keep(self.clone(), format!("node-{number}"), run));
        }
        chaos::start(self, tasks);
        Ok(())
    }

    /// Runs a story in this world until it ends, something does not hold, or the last step is reached.
    async fn tell(&self, story: impl Future<Output = Result<(), String>>) -> Result<Report, Error> {
        let mut tasks = JoinSet::new();
        self.start(&mut tasks).await?;
        let told = tokio::select! {
            biased;
            () = self.ended.cancelled() => Ok(()),
            told = story => told,
        };
        tasks.shutdown().await;
        self.gateway.stop().await;
        let report = self.journal.report();
        match self.journal.violation().or(told.err()) {
            Some(what) => Err(Error::Violation { what, report: Box::new(report) }),
            None => Ok(report),
        }
    }
}

/// One simulation.
pub fn run(options: Options) -> Result<Report, Error> {
    runtime()?.block_on(async {
        let profile = Profile::from_seed(options.seed);
        let world = World::new(options, profile)?;
        world.journal.note(&format!("{:?}", world.faults.profile));
        world.tell(user::story(world.clone())).await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.map_err(|error| Error::Setup(error.to_string()))
}

/// A server writes into its directory, so each has one of its own.
fn copy_of(keys: &tempfile::TempDir) -> Result<tempfile::TempDir, Error> {
    let copy = || {
        let dir = tempfile::tempdir()?;
        for file in std::fs::read_dir(keys.path())? {
            let file = file?;
            std::fs::copy(file.path(), dir.path().join(file.file_name()))?;
        }
        Ok(dir)
    };
    copy().map_err(|error: std::io::Error| Error::Setup(error.to_string()))
}

/// A directory with keys and certificates: making them takes longer than many a run, so runs at the same time share one, and
/// whoever holds it lets those after it have it, too.
pub fn keys() -> Result<Arc<tempfile::TempDir>, Error> {
    static DIR: Mutex<Weak<tempfile::TempDir>> = Mutex::new(Weak::new());
    let mut known = DIR.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = known.upgrade() {
        return Ok(dir);
    }
    let dir = Arc::new(tempfile::tempdir().map_err(|error| Error::Setup(error.to_string()))?);
    let path = dir.path().to_owned();
    // A server that only lives to make them; in a thread of its own, since this may be within a runtime.
    let filled = std::thread::spawn(move || {
        runtime()?.block_on(async {
            let store = Arc::new(store::Embedded::in_memory());
            let started = apiserver::Server::start(server::config(&path), store).await;
            started.map(apiserver::Handle::crash).map_err(|error| Error::Setup(error.to_string()))
        })
    });
    filled.join().unwrap_or_else(|_| Err(Error::Setup("a thread panicked".to_owned())))?;
    *known = Arc::downgrade(&dir);
    Ok(dir)
}
