//! DaemonSet: one pod on each node that fits. Upstream's `pkg/controller/daemon`.

mod nodes;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};

use crate::action::{Action, Event, Outcome, slow_start, to_value};
use crate::history::{self, HASH_LABEL, History};
use crate::replica_set::positive;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};

pub const CONTROLLER: Controller = Controller {
    name: "daemonset-controller",
    identity: "daemon-set-controller",
    component: "daemonset-controller",
    watches: &[
        Watch::DaemonSets(|_, set| vec![meta::key(set)]),
        Watch::Pods(|_, pod| meta::controller_key::<DaemonSet, _>(pod).into_iter().collect()),
        Watch::ControllerRevisions(|_, revision| meta::controller_key::<DaemonSet, _>(revision).into_iter().collect()),
        Watch::Nodes(|view, _| view.daemon_sets.list().iter().map(|set| meta::key(&**set)).collect()),
    ],
    reconcile,
};

/// The label and annotation by which pods were told apart before there were revisions; still set.
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
/// Wait before a failed pod is replaced: this, doubled each time, at most so long; forgotten after twice the longest.
const BACKOFF_SECONDS: u64 = 1;
const BACKOFF_SECONDS_MAX: u64 = 15 * 60;
/// Pods made or deleted in one go.
const BURST: usize = 250;

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(set) = view.daemon_sets.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let Some(spec) = set.spec.as_ref() else { return Outcome::nothing() };
    if selector::is_empty(&spec.selector) {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.";
        return vec![Action::Record(Event::warning(&*set, "SelectingAll", text.to_owned()))].into();
    }
    if meta::is_deleting(&*set) {
        return Outcome::nothing();
    }
    let claimed = pods::claim(view.pods, &*set, &spec.selector);
    let live: BTreeSet<String> = claimed.owned.iter().filter_map(|pod| meta::label(&**pod, HASH_LABEL)).map(str::to_owned).collect();
    let mut by_node = ByNode::new();
    for pod in claimed.owned {
        by_node.entry(nodes::node_of(&pod)).or_default().push(pod);
    }
    let all = view.nodes.list();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let mut history = History::of(view, &*set, &spec.selector, &spec.template, collisions);
    let mut outcome = Outcome::from(claimed.actions);
    outcome.actions.append(&mut history.actions);
    let mut pass = Pass {
        set: &set,
        spec,
        context,
        current: history::hash_of(&history.update).to_owned(),
        creates: Vec::new(),
        deletes: Vec::new(),
        status: DaemonSetStatus::default(),
        backoff: Backoff::remembered(context),
        outcome,
    };
    for node in &all {
        let on_node = by_node.get(meta::name(&**node)).map(Vec::as_slice).unwrap_or_default();
        pass.manage_node(node, on_node);
        pass.count_node(node, on_node);
    }
    // Pods whose node is gone are left to the pod garbage collector.
    pass.roll(&all, &by_node);
    let mut outcome = pass.finish(history.collisions);
    outcome.actions.extend(history.clean_up(&live, spec.revision_history_limit));
    outcome
}

type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// How often the pod of a node had to be replaced lately, and when it was last, by the uptime: the time of day may be set.
/// Remembered from pass to pass.
#[derive(Default, Serialize, Deserialize)]
struct Backoff(BTreeMap<String, (u32, Duration)>);

impl Backoff {
    fn remembered(context: &Context<'_>) -> Self {
        let mut backoff: Self = context.memory.and_then(|memory| serde_json::from_value(memory.clone()).ok()).unwrap_or_default();
        let forgotten = Duration::from_secs(2 * BACKOFF_SECONDS_MAX);
        backoff.0.retain(|_, (_, last)| context.uptime.saturating_sub(*last) < forgotten);
        backoff
    }

    /// Grants a replacement, or tells how long it must wait yet.
    fn grant(&mut self, node: &str, uptime: Duration) -> Result<(), Duration> {
        let (times, last) = self.0.get(node).copied().unwrap_or_default();
        let seconds = if times == 0 { 0 } else { BACKOFF_SECONDS.saturating_mul(1 << (times - 1).min(30)).min(BACKOFF_SECONDS_MAX) };
        let left = (last + Duration::from_secs(seconds)).saturating_sub(uptime);
        if times > 0 && !left.is_zero() {
            return Err(left);
        }
        self.0.insert(node.to_owned(), (times.saturating_add(1), uptime));
        Ok(())
    }
}

struct Pass<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    context: &'a Context<'a>,
    current: String,
    creates: Vec<Action>,
    deletes: Vec<Action>,
    status: DaemonSetStatus,
    backoff: Backoff,
    outcome: Outcome,
}

impl Pass<'_> {
    /// Upstream's `podsShouldBeOnNode`: exactly one where it should run; failed ones are replaced.
    fn manage_node(&mut self, node: &Node, on_node: &[Arc<Pod>]) {
        let (should_run, should_continue) = nodes::should_run(self.spec, node);
        let mut running: Vec<Arc<Pod>> = Vec::new();
        for pod in on_node.iter().filter(|pod| !meta::is_deleting(&***pod)) {
            match pods::phase(pod) {
                "Failed" if should_continue => {
                    if let Err(wait) = self.backoff.grant(meta::name(node), self.context.uptime) {
                        self.outcome.requeue_in(wait);
                        continue;
                    }
                    let text = format!("Found failed daemon pod {} on node {}, will try to kill it", meta::key(&**pod), meta::name(node));
                    self.deletes.push(Action::Record(Event::warning(self.set, "FailedDaemonPod", text)));
                    self.delete(pod);
                }
                "Succeeded" if should_continue => {
                    let text =
                        format!("Found succeeded daemon pod {} on node {}, will try to delete it", meta::key(&**pod), meta::name(node));
                    self.deletes.push(Action::Record(Event::normal(self.set, "SucceededDaemonPod", text)));
                    self.delete(pod);
                }
                _ => running.push(pod.clone()),
            }
        }
        if !should_continue {
            running.iter().for_each(|pod| self.delete(pod));
            return;
        }
        // One that is still going makes room first.
        if should_run && on_node.is_empty() {
            self.create(node);
        }
        self.prune(&running);
    }

    /// The oldest stays; with surge, one of each template while the new one does not serve and the old one does.
    fn prune(&mut self, running: &[Arc<Pod>]) {
        if running.len() <= 1 {
            return;
        }
        if !update::allows_surge(self.spec) {
            let mut by_age: Vec<&Arc<Pod>> = running.iter().collect();
            by_age.sort_by_key(|pod| (meta::created(&***pod), meta::name(&***pod).to_owned()));
            by_age.into_iter().skip(1).for_each(|pod| self.delete(pod));
            return;
        }
        let pair = self.pair(running);
        pair.more.iter().for_each(|pod| self.delete(pod));
        if let (Some(new), Some(old)) = (pair.new, pair.old)
            && (!pods::is_ready(&old) || self.is_available(&new))
        {
            self.delete(&old);
        }
    }

    fn create(&mut self, node: &Node) {
        let mut pod = pods::from_template(&self.spec.template, self.set, self.context);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), self.current.clone());
        if let Some(generation) = meta::annotation(self.set, GENERATION_ANNOTATION) {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
        }
        nodes::pin(&mut pod, meta::name(node));
        let done = Event::normal(self.set, "SuccessfulCreate", format!("Created pod: {}", meta::name(&pod)));
        let failed = Event::warning(self.set, "FailedCreate", "Error creating: {}".to_owned());
        self.creates.push(Action::create(&pod).tell_done(done).tell_failed(failed));
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        let done = Event::normal(self.set, "SuccessfulDelete", format!("Deleted pod: {}", meta::name(&**pod)));
        let failed = Event::warning(self.set, "FailedDelete", "Error deleting: {}".to_owned());
        self.deletes.push(Action::delete(&**pod).tell_done(done).tell_failed(failed));
    }

    fn count_node(&mut self, node: &Node, on_node: &[Arc<Pod>]) {
        let (should_run, _) = nodes::should_run(self.spec, node);
        let scheduled = !on_node.is_empty();
        if !should_run {
            self.status.number_misscheduled += i32::from(scheduled);
            return;
        }
        self.status.desired_number_scheduled += 1;
        let oldest = on_node.iter().min_by_key(|pod| (meta::created(&***pod), meta::name(&***pod).to_owned()));
        let Some(pod) = oldest else { return };
        self.status.current_number_scheduled += 1;
        let add = |count: &mut Option<i32>| *count = Some(count.unwrap_or(0) + 1);
        if pods::is_ready(pod) && !meta::is_deleting(&**pod) {
            self.status.number_ready += 1;
            if pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.context.now) {
                add(&mut self.status.number_available);
            }
        }
        if self.is_current(pod) {
            add(&mut self.status.updated_number_scheduled);
        }
    }

    fn is_current(&self, pod: &Pod) -> bool {
        meta::label(pod, HASH_LABEL) == Some(&self.current)
    }

    fn finish(mut self, collisions: Option<i32>) -> Outcome {
        let wanted = self.status.desired_number_scheduled;
        self.status.number_unavailable = positive(wanted - self.status.number_available.unwrap_or(0));
        self.status.observed_generation = self.set.metadata.generation;
        self.status.conditions = self.set.status.as_ref().and_then(|status| status.conditions.clone());
        self.status.collision_count = collisions;
        let mut outcome = self.outcome;
        outcome.actions.extend(Action::update_status(self.set, &self.set.status, &self.status));
        outcome.actions.extend(slow_start(self.creates.into_iter().take(BURST).collect()));
        self.deletes.truncate(BURST);
        if !self.deletes.is_empty() {
            outcome.actions.push(Action::Together(self.deletes));
        }
        let settling = self.status.number_ready != self.status.number_available.unwrap_or(0);
        if let (true, Some(seconds)) = (settling, self.spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok())) {
            outcome.requeue_in(Duration::from_secs(seconds.max(1)));
        }
        outcome.memory = (!self.backoff.0.is_empty()).then(|| to_value(&self.backoff));
        outcome
    }
}

#[cfg(test)]
mod tests;
