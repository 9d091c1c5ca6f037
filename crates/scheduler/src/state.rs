//! The scheduler's own state and how each event changes it. Synchronous: `lib` does the waiting, `execute` the writing.

mod assume;
mod catalog;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Clock};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use scheduling::cluster::{Budget, Spread, SpreadKind};
use scheduling::enqueue::{Hold, held_back};
use scheduling::plugins::{Wake, volume_binding};
use scheduling::preemption::preempt;
use scheduling::queue::Queue;
use scheduling::schedule::{Search, Unschedulable, schedule_with};
use scheduling::selector::{Labels, Selector};
use scheduling::{Cluster, PodInfo, Verdict};

use crate::execute::{Effect, Outcome};
use crate::metrics::{self, Meter};
use crate::waiting::Waiting;
use crate::{Config, Event};

/// What is taken for granted of a pod that was decided on.
struct Assumed {
    uid: String,
    volumes: volume_binding::Plan,
    /// Keys of `Devices::assumed`.
    claims: Vec<String>,
}

pub struct State {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    search: Search,
    /// Pods decided on and not yet seen bound, by key: placed in the cluster, out of the queue's reach.
    assumed: BTreeMap<String, Assumed>,
    /// Of those, the ones whose volumes are on their way.
    waiting: Waiting,
    /// To be done before the next decision.
    ready: VecDeque<Effect>,
    /// Pods that may not be tried before something they name exists.
    held: BTreeMap<String, Arc<Pod>>,
    /// Pods on nodes that are not there, not yet or no longer, by key, with the node's name: they take its room when it comes.
    homeless: BTreeMap<String, (String, Arc<PodInfo>)>,
    /// What waiting is counted by: a clock that nobody sets.
    steady: Clock,
    meter: Meter,
}

impl State {
    pub fn new(config: Config) -> Self {
        let steady = Clock::starting_at(config.clock.now());
        let search = Search { percentage: config.percentage_of_nodes_to_score, ..Search::default() };
        Self {
            search,
            meter: Meter::new(config.metrics.clone(), &config.name),
            config,
            cluster: Cluster::default(),
            queue: Queue::default(),
            assumed: BTreeMap::new(),
            waiting: Waiting::default(),
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            homeless: BTreeMap::new(),
            steady,
        }
    }

    /// Tells how many pods wait where.
    pub fn tell_sizes(&self) {
        self.meter.sizes(&self.queue.sizes(), self.held.len(), self.cluster.nodes.len(), self.assumed.len());
    }

    /// For back-off and time-outs; what is written down takes the time of day.
    fn now(&self) -> Timestamp {
        self.steady.now()
    }

    fn time_of_day(&self) -> Timestamp {
        self.config.clock.now()
    }

    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Pod(change) => self.pod(change),
            Event::Node(change) => self.node(change),
            Event::Namespace(change) => {
                let name = change.key.name.to_string();
                match change.new {
                    Some(namespace) => self.cluster.namespaces.insert(name, namespace.metadata.labels.clone().unwrap_or_default()),
                    None => self.cluster.namespaces.remove(&name),
                };
                let now = self.now();
                self.queue.wake(Wake::Labels, now);
            }
            Event::Service(change) => {
                let selector = change.new.as_ref().and_then(|s| s.spec.as_ref()?.selector.clone());
                self.spread("Service", &change.key, selector.as_ref().map(Selector::of_set));
            }
            Event::ReplicaSet(change) => {
                let selector = change.new.as_ref().and_then(|s| Some(Selector::of(Some(&s.spec.as_ref()?.selector))));
                self.spread("ReplicaSet", &change.key, selector);
            }
            Event::StatefulSet(change) => {
                let selector = change.new.as_ref().and_then(|s| Some(Selector::of(Some(&s.spec.as_ref()?.selector))));
                self.spread("StatefulSet", &change.key, selector);
            }
            Event::ReplicationController(change) => {
                let selector = change.new.as_ref().and_then(|s| s.spec.as_ref()?.selector.clone());
                self.spread("ReplicationController", &change.key, selector.as_ref().map(Selector::of_set));
            }
            Event::Budget(change) => {
                let key = change.key.to_string();
                match change.new {
                    Some(budget) => self.cluster.budgets.insert(key, Budget::of(&budget)),
                    None => self.cluster.budgets.remove(&key),
                };
            }
            Event::Done(outcome) => self.done(outcome),
            Event::Time => self.settle(),
            Event::StorageClass(_)
            | Event::CsiNode(_)
            | Event::CsiDriver(_)
            | Event::Capacity(_)
            | Event::Volume(_)
            | Event::VolumeClaim(_) => self.storage(event),
            Event::DeviceClass(_) | Event::Slice(_) | Event::Claim(_) => self.devices(event),
        }
    }

    fn spread(&mut self, kind: &str, key: &client::ObjectKey, selector: Option<Selector>) {
        let id = format!("{kind}/{key}");
        let Some(selector) = selector else {
            self.cluster.spread.remove(&id);
            return;
        };
        let kind = if kind == "Service" { SpreadKind::Service } else { SpreadKind::Owner(kind.to_owned(), key.name.to_string()) };
        self.cluster.spread.insert(id, Spread { namespace: key.namespace.to_string(), kind, selector });
    }

    fn node(&mut self, change: Change<Node>) {
        let Some(node) = change.new else {
            let name = change.key.name.to_string();
            let pods = self.cluster.remove_node(&name);
            self.homeless.extend(pods.into_iter().map(|pod| (pod.key(), (name.clone(), pod))));
            return;
        };
        let relevant = change.old.as_ref().is_none_or(|old| differs(old, &node));
        let new = !self.cluster.nodes.contains_key(&*change.key.name);
        self.cluster.set_node(node);
        if new {
            for (_, (node, pod)) in self.homeless.extract_if(.., |_, (node, _)| *node == *change.key.name) {
                self.cluster.place(&node, pod);
            }
        }
        if relevant {
            let now = self.now();
            self.queue.wake(Wake::Node, now);
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let key = change.key.to_string();
        let now = self.now();
        let ended = |p: &Pod| matches!(p.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let Some(pod) = change.new.filter(|p| !ended(p)) else {
            self.forget(&key);
            self.queue.remove(&key);
            self.cluster.nominated.remove(&key);
            self.queue.wake(Wake::PodGone, now);
            return;
        };
        if let Some(node) = node_name(&pod) {
            let first = !self.assumed.contains_key(&key) && self.cluster.node_of(&key).is_none();
            self.settled(&key);
            self.held.remove(&key);
            self.meter.bound(&key, self.queue.get(&key), now);
            self.queue.done(&key);
            self.cluster.nominated.remove(&key);
            if self.cluster.nodes.contains_key(node) {
                self.homeless.remove(&key);
                self.cluster.set_pod(&pod);
            } else {
                self.homeless.insert(key, (node.to_owned(), Arc::new(PodInfo::new(pod.clone()))));
            }
            if first {
                self.queue.wake(Wake::PodPlaced, now);
            } else if change.old.is_some_and(|old| old.metadata.labels != pod.metadata.labels) {
                self.queue.wake(Wake::Labels, now);
            }
            return;
        }
        self.pending(key, &pod, now);
    }

    /// A pod without a node: ours to place, if it names us and nothing holds it back.
    fn pending(&mut self, key: String, pod: &Arc<Pod>, now: Timestamp) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if let Some(assumed) = self.assumed.get(&key) {
            if assumed.uid == uid {
                return;
            }
            // Another pod of the same name: the one decided on is gone.
            self.forget(&key);
            self.queue.remove(&key);
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        let hold = held_back(&self.cluster, &info, &self.config.name);
        self.held.remove(&key);
        if hold.is_some() || info.terminating {
            self.queue.remove(&key);
            self.cluster.nominated.remove(&key);
            if matches!(hold, Some(Hold::Waiting(_) | Hold::Gated)) {
                self.held.insert(key, pod.clone());
            }
            return;
        }
        if let Some(node) = pod.status.as_ref().and_then(|s| s.nominated_node_name.clone()).filter(|n| !n.is_empty()) {
            self.cluster.nominated.insert(key, (node, info.clone()));
        }
        if !self.queue.contains(&info.key()) {
            self.meter.came("PodAdd", "active");
        }
        self.queue.add(info, now);
    }

    fn forget(&mut self, key: &str) {
        self.meter.unbound(key, false);
        if let Some(assumed) = self.settled(key) {
            let devices = Arc::make_mut(&mut self.cluster.devices);
            for claim in &assumed.claims {
                devices.assumed.remove(claim);
            }
        }
        self.held.remove(key);
        self.homeless.remove(key);
        self.cluster.remove_pod(key);
    }

    fn done(&mut self, outcome: Outcome) {
        let now = self.now();
        match outcome {
            Outcome::Bound { key } => {
                self.meter.bound(&key, self.queue.get(&key), now);
                self.queue.done(&key);
            }
            Outcome::Asked { pod, node, claims, devices } => {
                if self.assumed.get(&pod.key()).is_some_and(|a| a.uid == pod.uid()) {
                    self.waiting.add(pod, node, claims, devices, now);
                    self.settle();
                }
            }
            Outcome::BindFailed { key, uid } => {
                // Only if it is still the pod that was decided on.
                if self.assumed.get(&key).is_some_and(|a| a.uid == uid) {
                    self.meter.unbound(&key, true);
                    self.forget(&key);
                    self.queue.retry(&key, now);
                    self.queue.wake(Wake::PodGone, now);
                }
            }
            Outcome::Told => {}
        }
    }

    /// How long nothing will happen by itself.
    pub fn wait(&self) -> Option<Duration> {
        let at = self.queue.next_at().into_iter().chain(self.waiting.next_at()).min()?;
        Some(Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO).max(Duration::from_millis(1)))
    }

    /// Tries the next pod that is due and returns what is to be done about it.
    pub fn next_effect(&mut self) -> Option<Effect> {
        if let Some(effect) = self.ready.pop_front() {
            return Some(effect);
        }
        let now = self.now();
        let queued = self.queue.pop(now)?;
        let time = self.time_of_day();
        let pod = queued.pod;
        let entropy = self.config.entropy.clone();
        let mut choose = |n: usize| usize::try_from(entropy.below(n as u64)).unwrap_or(0);
        let began = tokio::time::Instant::now();
        let verdict = schedule_with(&self.cluster, &pod, &mut self.search, &mut choose);
        let result = match &verdict {
            Verdict::Place { .. } => metrics::Result::Scheduled,
            Verdict::Error(_) => metrics::Result::Error,
            Verdict::Unschedulable(_) => metrics::Result::Unschedulable,
        };
        self.meter.decided(&pod.key(), result, began);
        match verdict {
            Verdict::Place { node, .. } => Some(self.assume(pod, node, time)),
            Verdict::Error(why) => {
                self.queue.retry(&pod.key(), now);
                Some(Effect::Tell {
                    pod,
                    reason: "SchedulerError",
                    message: why,
                    nominate: None,
                    victims: Vec::new(),
                    free_claim: None,
                    now: time,
                })
            }
            Verdict::Unschedulable(failed) => Some(self.unschedulable(pod, &failed, now)),
        }
    }

    fn unschedulable(&mut self, pod: Arc<PodInfo>, failed: &Unschedulable, now: Timestamp) -> Effect {
        let by: BTreeSet<&'static str> = failed.rejected.values().chain(&failed.before_nodes).map(|r| r.plugin).collect();
        self.queue.park(&pod.key(), by, now);
        let preemption = preempt(&self.cluster, &pod, failed);
        let best = preemption.best();
        let chosen = best.get(usize::try_from(self.config.entropy.below(best.len() as u64)).unwrap_or(0)).copied();
        let message = match (chosen, preemption.message.as_str()) {
            (Some(_), _) | (None, "") => failed.message.clone(),
            (None, more) => format!("{} {more}", failed.message),
        };
        let nominate = chosen.map(|c| c.node.clone());
        if let Some(node) = &nominate {
            self.cluster.nominated.insert(pod.key(), (node.clone(), pod.clone()));
        }
        let victims = chosen.map(|c| c.victims.clone()).unwrap_or_default();
        self.meter.preempted(victims.len());
        Effect::Tell {
            pod,
            reason: "Unschedulable",
            message,
            nominate,
            victims,
            free_claim: preemption.free_claim,
            now: self.time_of_day(),
        }
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// Whether a node changed in a way that scheduling looks at; heartbeats do not count.
fn differs(old: &Node, new: &Node) -> bool {
    let offers = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let labels = |n: &Node| -> Labels { n.metadata.labels.clone().unwrap_or_default() };
    old.spec != new.spec || labels(old) != labels(new) || offers(old) != offers(new)
}
