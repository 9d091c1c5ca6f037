//! The life of the simulated API server: started on the disk, killed, started again on what the disk kept. Clients reach it
//! through [`Gateway`], which is down in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apiserver::{Handle, InProcess, Server};
use auth::User;
use store::disk::sim::{self, SimDisk};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::datastore::Datastore;
use crate::{Error, World};

/// Where the API server is, if it is.
#[derive(Clone, Default)]
pub(crate) struct Gateway(Arc<Mutex<Option<Running>>>);

struct Running {
    handle: Handle,
    datastore: Arc<Datastore>,
    /// Cancelled when this server dies.
    dead: CancellationToken,
    tasks: JoinSet<()>,
}

impl Gateway {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server for a user, and what tells of its end.
    pub fn service(&self, user: &User) -> Option<(InProcess, CancellationToken)> {
        let running = self.lock();
        running.as_ref().map(|running| (running.handle.service_as(user.clone()), running.dead.clone()))
    }

    pub fn disk(&self) -> Option<SimDisk> {
        self.lock().as_ref().map(|running| running.datastore.disk.clone())
    }

    /// Starts on a disk.
    pub async fn start(&self, world: &World, disk: SimDisk) -> Result<(), Error> {
        let setup = |error: String| Error::Setup(error);
        let seed = world.options.seed.wrapping_add(world.journal.steps());
        let datastore = Datastore::open(disk, seed, world.faults.clone(), world.journal.clone()).map_err(|e| setup(e.to_string()))?;
        self.start_on(world, Arc::new(datastore)).await
    }

    async fn start_on(&self, world: &World, datastore: Arc<Datastore>) -> Result<(), Error> {
        let handle = Server::start(config(world.keys.path()), datastore.clone()).await.map_err(|error| Error::Setup(error.to_string()))?;
        let mut tasks = JoinSet::new();
        let time = datastore.clone();
        tasks.spawn(async move { time.engine.keep_time().await });
        *self.lock() = Some(Running { handle, datastore, dead: CancellationToken::new(), tasks });
        Ok(())
    }

    /// Kills the server, and takes the power from the disk. After a while it comes back on what is left.
    pub async fn crash(&self, world: &World, down: Duration) -> Result<(), Error> {
        let Some(mut running) = self.lock().take() else { return Ok(()) };
        running.dead.cancel();
        running.handle.crash();
        running.tasks.abort_all();
        let disk = running.datastore.disk.crash();
        tokio::time::sleep(down).await;
        // A server that cannot start is started again: one attempt without faults stands for the last of them.
        world.faults.hold(true);
        let seed = world.options.seed.wrapping_add(world.journal.steps());
        let datastore = Datastore::open(disk, seed, world.faults.clone(), world.journal.clone());
        let datastore = Arc::new(datastore.map_err(|error| Error::Setup(format!("recovering: {error}")))?);
        if let Err(what) = datastore.recovered(&running.datastore).await {
            world.journal.violate(what);
        }
        let started = self.start_on(world, datastore).await;
        world.faults.hold(false);
        started
    }

    /// Lets the disk die at a later call; whether there is a disk.
    pub fn doom(&self, calls: u64) -> bool {
        let Some(disk) = self.disk() else { return false };
        disk.set_faults(sim::Faults { die_at: Some(calls), ..sim::Faults::default() });
        true
    }

    pub async fn stop(&self) {
        let running = self.lock().take();
        if let Some(mut running) = running {
            running.dead.cancel();
            running.handle.crash();
            running.tasks.shutdown().await;
        }
    }
}

pub(crate) fn config(keys: &std::path::Path) -> apiserver::Config {
    let mut config = apiserver::Config::new(keys);
    config.bind_address = std::net::IpAddr::from([127, 0, 0, 1]);
    config.secure_port = 0;
    config.advertise_address = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    config
}
