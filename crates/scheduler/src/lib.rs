//! kube-scheduler: feeds watch events to `scheduling`, and carries out its verdicts.
//!
//! One task owns the cluster and the queue; bindings and status writes run beside it. It decides nothing itself.

mod configuration;
mod execute;
mod inputs;
pub mod metrics;
mod prebind;
mod state;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use client::{Clock, Entropy, EventRecorder, Informers, Registry};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use configuration::configuration;
use execute::{Outcome, execute};
use inputs::Inputs;
use state::State;

/// Writes under way at once; more pods wait in the queue.
const EFFECTS_MAX: usize = 128;

/// What the scheduler needs to run.
#[derive(Clone)]
pub struct Config {
    /// Pods that name this scheduler are its own.
    pub name: String,
    /// Reported in events.
    pub instance: String,
    /// `percentageOfNodesToScore`: stop looking after so many feasible nodes; 0 lets the size of the cluster decide.
    pub percentage_of_nodes_to_score: usize,
    pub clock: Clock,
    pub entropy: Entropy,
    /// Where it is counted.
    pub metrics: Option<Arc<Registry>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            instance: "default-scheduler".to_owned(),
            percentage_of_nodes_to_score: 0,
            clock: Clock::System,
            entropy: Entropy::from_system(),
            metrics: None,
        }
    }
}

/// Whatever can happen to the scheduler.
pub(crate) enum Event {
    Pod(client::Change<Pod>),
    Node(client::Change<Node>),
    Namespace(client::Change<Namespace>),
    Service(client::Change<Service>),
    ReplicaSet(client::Change<ReplicaSet>),
    StatefulSet(client::Change<StatefulSet>),
    ReplicationController(client::Change<ReplicationController>),
    Budget(client::Change<PodDisruptionBudget>),
    StorageClass(client::Change<StorageClass>),
    CsiNode(client::Change<CSINode>),
    CsiDriver(client::Change<CSIDriver>),
    Capacity(client::Change<CSIStorageCapacity>),
    Volume(client::Change<PersistentVolume>),
    VolumeClaim(client::Change<PersistentVolumeClaim>),
    DeviceClass(client::Change<DeviceClass>),
    Slice(client::Change<ResourceSlice>),
    Claim(client::Change<ResourceClaim>),
    Done(Outcome),
    /// A pod's backoff may be over.
    Time,
}

/// Schedules until cancelled. Errors only where the informers stop.
pub async fn run(config: Config, client: Client, informers: &Informers, cancel: CancellationToken) -> client::Result<()> {
    let mut inputs = Inputs::open(&client, informers).await?;
    let recorder = EventRecorder::new(client.clone(), &config.name, &config.instance, config.clock.clone());
    let mut state = State::new(config.clone());
    while let Some(event) = inputs.try_next() {
        state.handle(event);
    }
    let mut effects: JoinSet<Outcome> = JoinSet::new();
    loop {
        while effects.len() < EFFECTS_MAX
            && let Some(effect) = state.next_effect()
        {
            effects.spawn(execute(client.clone(), recorder.clone(), effect));
        }
        state.tell_sizes();
        let wait = state.wait();
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            event = inputs.next() => event,
            Some(done) = effects.join_next() => match done {
                Ok(outcome) => Event::Done(outcome),
                Err(error) => {
                    tracing::error!(%error, "a scheduling write panicked");
                    continue;
                }
            },
            () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))) => Event::Time,
        };
        state.handle(event);
        // Whatever else has arrived is taken in before the next decision.
        while let Some(event) = inputs.try_next() {
            state.handle(event);
        }
    }
    effects.shutdown().await;
    Ok(())
}
