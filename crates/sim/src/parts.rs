//! The components of the control plane, each kept running: whoever is killed, at whatever point, is started again after a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::User;
use client::Informers;
use controller_runtime::{ControllerManager, MANAGER};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::World;
use crate::wire::Wire;

/// The running instances, by name.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<Mutex<BTreeMap<String, CancellationToken>>>);

impl Parts {
    /// A new instance takes the place of the last.
    pub fn instance(&self, name: &str) -> CancellationToken {
        let token = CancellationToken::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), token.clone());
        token
    }

    pub fn kill(&self, name: &str) {
        if let Some(token) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            token.cancel();
        }
    }
}

/// Runs instances of a part one after another, without end.
pub(crate) async fn keep<F: Future<Output = ()>>(world: World, name: String, mut run: impl FnMut(CancellationToken) -> F) {
    loop {
        let alive = world.parts.instance(&name);
        tokio::select! {
            biased;
            () = alive.cancelled() => {}
            () = run(alive.clone()) => world.journal.note(&format!("{name} ended by itself")),
        }
        alive.cancel();
        let down_ms = 500 + world.faults.entropy.below(20_000);
        tokio::time::sleep(Duration::from_millis(down_ms)).await;
        world.journal.note(&format!("{name} starts again"));
    }
}

pub(crate) fn start(world: &World, tasks: &mut JoinSet<()>) {
    let managers = world.clone();
    tasks.spawn(keep(world.clone(), "manager".to_owned(), move |alive| manager(managers.clone(), alive)));
    let schedulers = world.clone();
    tasks.spawn(keep(world.clone(), "scheduler".to_owned(), move |alive| scheduler(schedulers.clone(), alive)));
}

async fn manager(world: World, alive: CancellationToken) {
    let config = controller_runtime::Config {
        clock: world.clock.clone(),
        entropy: world.entropy.clone(),
        controllers: controllers::Config { root_ca: "certificate".to_owned(), ..controllers::Config::default() },
        ..controller_runtime::Config::default()
    };
    let client_for = |name: &str| {
        let user =
            if name == MANAGER { User::new("system:kube-controller-manager", &[]) } else { User::service_account("kube-system", name) };
        client::in_process(Wire::new(&world, user, "manager", alive.clone()))
    };
    if let Err(error) = ControllerManager::run(config, client_for, CancellationToken::new()).await {
        world.journal.note(&format!("the controller manager ended: {error}"));
    }
}

async fn scheduler(world: World, alive: CancellationToken) {
    let config = scheduler::Config { clock: world.clock.clone(), entropy: world.entropy.clone(), ..scheduler::Config::default() };
    let client = client::in_process(Wire::new(&world, User::new("system:kube-scheduler", &[]), "scheduler", alive));
    let informers = Informers::with_entropy(client.clone(), world.entropy.clone());
    if let Err(error) = scheduler::run(config, client, &informers, CancellationToken::new()).await {
        world.journal.note(&format!("the scheduler ended: {error}"));
    }
}
