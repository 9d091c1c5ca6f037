//! DaemonSet: one pod on each node that fits. Upstream's `pkg/controller/daemon`.
//!
//! Not here yet: ControllerRevisions (so no `rollout undo`), `maxSurge`, and the back-off of pods that fail again and again.

mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::action::{Action, Event, Outcome, slow_start};
use crate::deployment::{hash, scaled};
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
        Watch::Nodes(|view, _| view.daemon_sets.list().iter().map(|set| meta::key(&**set)).collect()),
    ],
    reconcile,
};

pub const HASH_LABEL: &str = "controller-revision-hash";
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
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in claimed.owned {
        by_node.entry(nodes::node_of(&pod)).or_default().push(pod);
    }
    let all = view.nodes.list();
    let current = hash(&spec.template, None);
    let mut pass = Pass { set: &set, spec, context, current, creates: Vec::new(), deletes: Vec::new(), status: DaemonSetStatus::default() };
    for node in &all {
        let on_node = by_node.remove(meta::name(&**node)).unwrap_or_default();
        pass.manage_node(node, &on_node);
        pass.count_node(node, &on_node);
    }
    // Pods whose node is gone are left to the pod garbage collector.
    pass.roll(&all, view);
    let Pass { creates, mut deletes, mut status, .. } = pass;
    let wanted = status.desired_number_scheduled;
    status.number_unavailable = positive(wanted - status.number_available.unwrap_or(0));
    status.observed_generation = set.metadata.generation;
    status.conditions = set.status.as_ref().and_then(|status| status.conditions.clone());
    status.collision_count = set.status.as_ref().and_then(|status| status.collision_count);
    let mut outcome = Outcome::from(claimed.actions);
    outcome.actions.extend(Action::update_status(&*set, &set.status, &status));
    outcome.actions.extend(slow_start(creates.into_iter().take(BURST).collect()));
    deletes.truncate(BURST);
    if !deletes.is_empty() {
        outcome.actions.push(Action::Together(deletes));
    }
    let settling = status.number_ready != status.number_available.unwrap_or(0);
    if let (true, Some(seconds)) = (settling, spec.min_ready_seconds.and_then(|seconds| u64::try_from(seconds).ok())) {
        outcome.requeue_in(std::time::Duration::from_secs(seconds.max(1)));
    }
    outcome
}

struct Pass<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    context: &'a Context<'a>,
    current: String,
    creates: Vec<Action>,
    deletes: Vec<Action>,
    status: DaemonSetStatus,
}

impl Pass<'_> {
    /// Upstream's `podsShouldBeOnNode`: exactly one where it should run; failed ones are replaced.
    fn manage_node(&mut self, node: &Node, on_node: &[Arc<Pod>]) {
        let (should_run, should_continue) = nodes::should_run(self.spec, node);
        let mut running: Vec<&Arc<Pod>> = Vec::new();
        for pod in on_node.iter().filter(|pod| !meta::is_deleting(&***pod)) {
            match pods::phase(pod) {
                "Failed" if should_continue => {
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
                _ => running.push(pod),
            }
        }
        if !should_continue {
            running.into_iter().for_each(|pod| self.delete(pod));
            return;
        }
        // One that is still going makes room first.
        if should_run && on_node.is_empty() {
            self.create(node);
        }
        // The oldest stays.
        running.sort_by_key(|pod| (meta::created(&***pod), meta::name(&***pod).to_owned()));
        running.into_iter().skip(1).for_each(|pod| self.delete(pod));
    }

    fn create(&mut self, node: &Node) {
        let mut pod = pods::from_template(&self.spec.template, self.set, self.context);
        pod.metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), self.current.clone());
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

    /// Deletes old pods, those that do not serve first, while no more than allowed are unavailable.
    fn roll(&mut self, all: &[Arc<Node>], view: &View<'_>) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
            || !self.creates.is_empty()
            || !self.deletes.is_empty()
        {
            return;
        }
        let limit = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
        let mut room = scaled(&limit, self.status.desired_number_scheduled, true).max(1);
        let owned = view.pods.controlled_by(meta::uid(self.set));
        let mut old_available = Vec::new();
        for node in all.iter().filter(|node| nodes::should_run(self.spec, node).0) {
            let pod = owned.iter().find(|pod| nodes::node_of(pod) == meta::name(&**node));
            let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
            let available = pod.is_some_and(|pod| !meta::is_deleting(&**pod) && pods::is_available(pod, min_ready, self.context.now));
            match pod.filter(|pod| !meta::is_deleting(&***pod) && !self.is_current(pod)) {
                Some(pod) if available => old_available.push(pod.clone()),
                Some(pod) => {
                    // It is down already: replacing it costs nothing.
                    room -= 1;
                    self.delete(pod);
                }
                None => room -= i32::from(!available),
            }
        }
        let count = usize::try_from(room).unwrap_or(0);
        old_available.iter().take(count).for_each(|pod| self.delete(pod));
    }
}

#[cfg(test)]
mod tests;
