//! kube-scheduler: feeds watch events to `scheduling`, and carries out its verdicts.
//!
//! One task owns the cluster and the queue; bindings and status writes run beside it. It decides nothing itself.

mod execute;
mod state;

use std::time::Duration;

use client::{Clock, Entropy, EventRecorder, Informers, Scope, Subscription};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use execute::{Outcome, execute};
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
    pub clock: Clock,
    pub entropy: Entropy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            instance: "default-scheduler".to_owned(),
            clock: Clock::System,
            entropy: Entropy::from_system(),
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
    Done(Outcome),
    /// A pod's backoff may be over.
    Time,
}

/// The watches the scheduler lives on.
struct Inputs {
    pods: Subscription<Pod>,
    nodes: Subscription<Node>,
    namespaces: Subscription<Namespace>,
    services: Subscription<Service>,
    replica_sets: Subscription<ReplicaSet>,
    stateful_sets: Subscription<StatefulSet>,
    replication_controllers: Subscription<ReplicationController>,
    budgets: Subscription<PodDisruptionBudget>,
}

/// Schedules until cancelled. Errors only where the informers stop.
pub async fn run(config: Config, client: Client, informers: &Informers, cancel: CancellationToken) -> client::Result<()> {
    let mut inputs = subscribe(informers).await?;
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

async fn subscribe(informers: &Informers) -> client::Result<Inputs> {
    let (pods, nodes) = (informers.of::<Pod>(Scope::all()), informers.of::<Node>(Scope::all()));
    let namespaces = informers.of::<Namespace>(Scope::all());
    let services = informers.of::<Service>(Scope::all());
    let replica_sets = informers.of::<ReplicaSet>(Scope::all());
    let stateful_sets = informers.of::<StatefulSet>(Scope::all());
    let replication_controllers = informers.of::<ReplicationController>(Scope::all());
    let budgets = informers.of::<PodDisruptionBudget>(Scope::all());
    pods.synced().await?;
    nodes.synced().await?;
    namespaces.synced().await?;
    services.synced().await?;
    replica_sets.synced().await?;
    stateful_sets.synced().await?;
    replication_controllers.synced().await?;
    budgets.synced().await?;
    Ok(Inputs {
        pods: pods.subscribe(),
        nodes: nodes.subscribe(),
        namespaces: namespaces.subscribe(),
        services: services.subscribe(),
        replica_sets: replica_sets.subscribe(),
        stateful_sets: stateful_sets.subscribe(),
        replication_controllers: replication_controllers.subscribe(),
        budgets: budgets.subscribe(),
    })
}

impl Inputs {
    /// Nodes come before pods, so that pods find theirs.
    fn try_next(&mut self) -> Option<Event> {
        None.or_else(|| self.nodes.try_next().map(Event::Node))
            .or_else(|| self.namespaces.try_next().map(Event::Namespace))
            .or_else(|| self.services.try_next().map(Event::Service))
            .or_else(|| self.replica_sets.try_next().map(Event::ReplicaSet))
            .or_else(|| self.stateful_sets.try_next().map(Event::StatefulSet))
            .or_else(|| self.replication_controllers.try_next().map(Event::ReplicationController))
            .or_else(|| self.budgets.try_next().map(Event::Budget))
            .or_else(|| self.pods.try_next().map(Event::Pod))
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            change = self.nodes.next() => Event::Node(change),
            change = self.namespaces.next() => Event::Namespace(change),
            change = self.services.next() => Event::Service(change),
            change = self.replica_sets.next() => Event::ReplicaSet(change),
            change = self.stateful_sets.next() => Event::StatefulSet(change),
            change = self.replication_controllers.next() => Event::ReplicationController(change),
            change = self.budgets.next() => Event::Budget(change),
            change = self.pods.next() => Event::Pod(change),
        }
    }
}
