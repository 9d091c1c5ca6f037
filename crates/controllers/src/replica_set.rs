//! ReplicaSet: as many pods as asked for. Upstream's `pkg/controller/replicaset`. What it does is generic over
//! [`Replicated`], so that [`ReplicationController`](crate::replication_controller) does the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::action::{Action, Event, Outcome, slow_start, to_value};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods, selector};

pub const CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    identity: "replicaset-controller",
    component: "replicaset-controller",
    watches: &[Watch::ReplicaSets(|_, set| vec![meta::key(set)]), Watch::Pods(keys_of_pod)],
    reconcile,
};

/// Pods made or deleted in one go.
const BURST: usize = 500;

fn keys_of_pod(view: &View<'_>, pod: &Pod) -> Vec<Key> {
    if meta::controller(pod).is_some() {
        return meta::controller_key::<ReplicaSet, _>(pod).into_iter().collect();
    }
    let sets = view.replica_sets.list_namespace(meta::namespace(pod));
    let wanting = sets.iter().filter(|set| {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        selector.is_some_and(|selector| !selector::is_empty(selector) && selector::matches(selector, pod.metadata.labels.as_ref()))
    });
    wanting.map(|set| meta::key(&**set)).collect()
}

/// Something that keeps a number of pods.
pub(crate) trait Replicated: Metadata<Ty = ObjectMeta> {
    type Status: Serialize + DeserializeOwned + Clone;

    fn replicas(&self) -> Option<i32>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn selector(&self) -> LabelSelector;
    fn min_ready_seconds(&self) -> Option<i32>;
    fn status(&self) -> &Option<Self::Status>;
}

impl Replicated for ReplicaSet {
    type Status = ReplicaSetStatus;

    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn selector(&self) -> LabelSelector {
        self.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default()
    }
    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }
    fn status(&self) -> &Option<ReplicaSetStatus> {
        &self.status
    }
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(set) = view.replica_sets.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let siblings = match meta::controller(&*set) {
        Some(owner) => view.replica_sets.controlled_by(&owner.uid),
        None => Vec::new(),
    };
    let others = siblings.iter().map(|sibling| meta::uid(&**sibling).to_owned()).filter(|uid| uid != meta::uid(&*set));
    replicate(view, &*set, &others.collect::<Vec<_>>(), context)
}

/// One pass. `siblings` are the UIDs of others of the same owner.
pub(crate) fn replicate<S: Replicated>(view: &View<'_>, set: &S, siblings: &[String], context: &Context<'_>) -> Outcome {
    let claimed = pods::claim(view.pods, set, &set.selector());
    let active: Vec<Arc<Pod>> = claimed.owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let terminating = claimed.owned.iter().filter(|pod| pods::is_terminating(pod)).count();

    let mut outcome = Outcome::from(claimed.actions);
    let status = new_status(set, &active, terminating, context);
    let settled = status["readyReplicas"] == status["availableReplicas"];
    // The status first: when pods cannot be made, it must say so.
    outcome
        .actions
        .extend(serde_json::from_value::<S::Status>(status).ok().and_then(|status| Action::update_status(set, set.status(), &status)));
    if !meta::is_deleting(set) {
        outcome.actions.extend(manage_replicas(view, set, siblings, &active, context));
    }
    if let (false, Some(seconds)) = (settled, set.min_ready_seconds().and_then(|seconds| u64::try_from(seconds).ok())) {
        outcome.requeue_in(Duration::from_secs(seconds.max(1)));
    }
    outcome
}

fn wanted(set: &impl Replicated) -> usize {
    usize::try_from(set.replicas().unwrap_or(1)).unwrap_or(0)
}

fn manage_replicas<S: Replicated>(
    view: &View<'_>,
    set: &S,
    siblings: &[String],
    active: &[Arc<Pod>],
    context: &Context<'_>,
) -> Vec<Action> {
    let wanted = wanted(set);
    if active.len() < wanted {
        let count = (wanted - active.len()).min(BURST);
        return slow_start((0..count).filter_map(|_| create_pod(set, context)).collect());
    }
    let count = (active.len() - wanted).min(BURST);
    if count == 0 {
        return Vec::new();
    }
    let mut ranked = ranked_by_node(view, siblings, active);
    ranked.sort_by(|a, b| pods::deletion_order((&a.0, a.1), (&b.0, b.1), context.now));
    vec![Action::Together(ranked.iter().take(count).map(|(pod, _)| delete_pod(set, pod)).collect())]
}

fn create_pod<S: Replicated>(set: &S, context: &Context<'_>) -> Option<Action> {
    let pod = pods::from_template(set.template()?, set, context);
    let done = Event::normal(set, "SuccessfulCreate", format!("Created pod: {}", meta::name(&pod)));
    let failed = Event::warning(set, "FailedCreate", "Error creating: {}".to_owned());
    Some(Action::create(&pod).tell_done(done).tell_failed(failed))
}

fn delete_pod<S: Replicated>(set: &S, pod: &Pod) -> Action {
    let done = Event::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", meta::name(pod)));
    let failed = Event::warning(set, "FailedDelete", "Error deleting: {}".to_owned());
    Action::delete(pod).tell_done(done).tell_failed(failed)
}

/// Each pod with the number of active pods on its node that belong to ReplicaSets of the same owner, so that doubled-up
/// pods go first.
fn ranked_by_node(view: &View<'_>, siblings: &[String], active: &[Arc<Pod>]) -> Vec<(Arc<Pod>, usize)> {
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |pods: &[Arc<Pod>]| {
        for pod in pods.iter().filter(|pod| pods::is_active(pod)) {
            *per_node.entry(pods::node_name(pod).to_owned()).or_default() += 1;
        }
    };
    count(active);
    for sibling in siblings {
        count(&view.pods.controlled_by(sibling));
    }
    active.iter().map(|pod| (pod.clone(), per_node.get(pods::node_name(pod)).copied().unwrap_or(0))).collect()
}

/// In the shape that the statuses of all sets share.
fn new_status<S: Replicated>(set: &S, active: &[Arc<Pod>], terminating: usize, context: &Context<'_>) -> Value {
    let old: ReplicaSetStatus = set.status().as_ref().and_then(|status| serde_json::from_value(to_value(status)).ok()).unwrap_or_default();
    let template_labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let min_ready = set.min_ready_seconds().unwrap_or(0);
    let count = |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX);
    let replicas = count(&|_| true);
    to_value(&ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: positive(count(&|pod| selector::has_all(&template_labels, pod.metadata.labels.as_ref()))),
        ready_replicas: positive(count(&pods::is_ready)),
        available_replicas: positive(count(&|pod| pods::is_available(pod, min_ready, context.now))),
        terminating_replicas: i32::try_from(terminating).ok(),
        observed_generation: set.metadata().generation,
        conditions: conditions(old.conditions, replicas, set, context),
    })
}

/// Counts that are zero are left out, as upstream's omitempty does.
pub(crate) fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// `ReplicaFailure` is there while pods cannot be made or deleted.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    replicas: i32,
    set: &impl Replicated,
    context: &Context<'_>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let have = usize::try_from(replicas).unwrap_or(0);
    match context.failure.filter(|failure| failure.verb != "patch" && have != wanted(set)) {
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) if conditions.iter().any(|condition| condition.type_ == "ReplicaFailure") => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(if have < wanted(set) { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(meta::time(context.now)),
        }),
    }
    (!conditions.is_empty()).then_some(conditions)
}
