//! What controllers ask of pods: phase and readiness, which one to delete first, how to make one from a template.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use serde_json::json;

use crate::action::{Action, Target};
use crate::view::{Context, Lister};
use crate::{meta, selector};

/// Annotation by which a user says which pods are cheap to lose.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !meta::is_deleting(pod)
}

/// Being deleted and not finished.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && meta::is_deleting(pod)
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when a ready pod is ready.
fn ready_since(pod: &Pod) -> Option<&Time> {
    condition(pod, "Ready").filter(|condition| condition.status == "True")?.last_transition_time.as_ref()
}

/// Ready for at least so long.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    if !is_ready(pod) || min_ready_seconds == 0 {
        return is_ready(pod);
    }
    ready_since(pod).is_some_and(|since| meta::since(since, now).as_secs() >= i64::from(min_ready_seconds))
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

/// The first is the first to be deleted: upstream's `ActivePodsWithRanks`. `rank` counts the related pods on the same node.
pub fn deletion_order(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| meta::annotation(pod, DELETION_COST).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    (!node_name(a).is_empty())
        .cmp(&!node_name(b).is_empty())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| match (ready_since(a), ready_since(b)) {
            (Some(since_a), Some(since_b)) if is_ready(a) && is_ready(b) => newer_first(since_a.0, since_b.0, a, b, now),
            _ => Ordering::Equal,
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| newer_first(meta::created(a), meta::created(b), a, b, now))
}

/// Newer first, but ages within a power of two count as equal and are decided by UID, so that scaling down does not
/// always hit the newest.
fn newer_first(a: Timestamp, b: Timestamp, pod_a: &Pod, pod_b: &Pod, now: Timestamp) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let rank = |time: Timestamp| {
        let age = now.duration_since(time).as_nanos();
        if age <= 0 { -1 } else { i64::from(age.ilog2()) }
    };
    rank(a).cmp(&rank(b)).then_with(|| meta::uid(pod_a).cmp(meta::uid(pod_b)))
}

/// A pod of a template, as upstream's `GetPodFromTemplate`, with its random name already chosen.
pub fn from_template<O: Metadata<Ty = ObjectMeta>>(template: &PodTemplateSpec, owner: &O, context: &Context<'_>) -> Pod {
    let prefix = format!("{}-", meta::name(owner));
    let name = Some(format!("{}{}", truncated(&prefix), context.name_suffix()));
    let of_template = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name,
        generate_name: Some(prefix),
        namespace: Some(meta::namespace(owner).to_owned()),
        labels: of_template.labels,
        annotations: of_template.annotations,
        finalizers: of_template.finalizers,
        owner_references: Some(vec![meta::controller_ref(owner)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// A generated name has at most 63 bytes, five of them random.
fn truncated(prefix: &str) -> &str {
    prefix.get(..58).unwrap_or(prefix)
}

/// Which objects an owner has, and what must be done so that the API says so.
#[derive(Debug)]
pub struct Claimed<K> {
    pub owned: Vec<Arc<K>>,
    pub actions: Vec<Action>,
}

/// Upstream's `ControllerRefManager`: keeps what matches, releases what no longer does, adopts matching orphans after
/// asking the API server whether the owner still lives.
pub fn claim<O, K>(lister: &dyn Lister<K>, owner: &O, owner_selector: &LabelSelector) -> Claimed<K>
where
    O: Metadata<Ty = ObjectMeta>,
    K: Metadata<Ty = ObjectMeta>,
{
    claim_if(lister, owner, owner_selector, |_| true)
}

/// As [`claim`], of objects that also pass a test.
pub fn claim_if<O, K>(lister: &dyn Lister<K>, owner: &O, owner_selector: &LabelSelector, test: impl Fn(&K) -> bool) -> Claimed<K>
where
    O: Metadata<Ty = ObjectMeta>,
    K: Metadata<Ty = ObjectMeta>,
{
    let uid = meta::uid(owner);
    let matches = |object: &K| selector::matches(owner_selector, object.metadata().labels.as_ref()) && test(object);
    let mut claimed = Claimed { owned: Vec::new(), actions: Vec::new() };
    for object in lister.controlled_by(uid) {
        if matches(&object) {
            claimed.owned.push(object);
        } else if !meta::is_deleting(owner) {
            claimed.actions.push(release(&*object, uid));
        }
    }
    if meta::is_deleting(owner) || selector::is_empty(owner_selector) {
        return claimed;
    }
    for object in lister.orphans(meta::namespace(owner)) {
        if meta::is_deleting(&*object) || !matches(&object) {
            continue;
        }
        if claimed.actions.iter().all(|action| !matches!(action, Action::RequireLive { .. })) {
            claimed.actions.push(Action::RequireLive { target: Target::of(owner), uid: uid.to_owned() });
        }
        claimed.actions.push(adopt(&*object, owner));
        claimed.owned.push(object);
    }
    claimed
}

fn adopt<O: Metadata<Ty = ObjectMeta>, K: Metadata<Ty = ObjectMeta>>(object: &K, owner: &O) -> Action {
    let mut owners = object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != meta::uid(owner));
    owners.push(meta::controller_ref(owner));
    Action::patch(object, json!({"metadata": {"ownerReferences": owners}}))
}

fn release<K: Metadata<Ty = ObjectMeta>>(object: &K, uid: &str) -> Action {
    let mut owners = object.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|reference| reference.uid != uid);
    Action::patch(object, json!({"metadata": {"ownerReferences": owners}}))
}
