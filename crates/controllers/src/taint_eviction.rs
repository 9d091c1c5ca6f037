//! Pods leave nodes with NoExecute taints that they do not tolerate, or no longer do. Upstream's `tainteviction`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use serde_json::json;

use crate::action::{Action, Event, Outcome, to_value};
use crate::view::{Context, Key, View, Watch, index};
use crate::{Controller, meta, pods};

pub const CONTROLLER: Controller = Controller {
    name: "taint-eviction-controller",
    identity: "node-controller",
    component: "taint-eviction-controller",
    watches: &[
        Watch::Nodes(|_, node| vec![meta::key(node)]),
        Watch::Pods(|_, pod| if pods::node_name(pod).is_empty() { Vec::new() } else { vec![Key::cluster(pods::node_name(pod))] }),
    ],
    reconcile,
};

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(node) = view.nodes.get("", &key.name) else { return Outcome::nothing() };
    let taints = no_execute(&node);
    let mut outcome = Outcome::nothing();
    if taints.is_empty() {
        return outcome;
    }
    for pod in view.pods.by_index(index::NODE_NAME, &key.name) {
        if meta::is_deleting(&*pod) || pods::is_finished(&pod) {
            continue;
        }
        match evict_at(&pod, &taints, context.now) {
            None => {}
            Some(at) if at <= context.now => outcome.actions.extend(evict(&pod, context.now)),
            Some(at) => outcome.requeue_in(meta::unsigned(at.duration_since(context.now)) + Duration::from_millis(10)),
        }
    }
    outcome
}

fn no_execute(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

/// `None`: it may stay for ever.
fn evict_at(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = || pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let mut tolerating = tolerations().filter(|toleration| tolerates(toleration, taint)).peekable();
        if tolerating.peek().is_none() {
            return Some(now);
        }
        // The shortest time given; without any, for ever.
        if let Some(seconds) = tolerating.filter_map(|toleration| toleration.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(now, |time| time.0).max(meta::created(pod));
            let until = since.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
            earliest = Some(earliest.map_or(until, |before| before.min(until)));
        }
    }
    earliest
}

/// Upstream's `Toleration.ToleratesTaint`.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

fn evict(pod: &Pod, now: Timestamp) -> Vec<Action> {
    let message = "Taint manager: deleting due to NoExecute taint";
    let event = Event::normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {}", meta::key(pod)));
    disrupt(pod, "DeletionByTaintManager", message, now).into_iter().chain([Action::delete(pod).tell_done(event)]).collect()
}

/// Marks a pod as disrupted before it is deleted; nothing when it already is.
pub(crate) fn disrupt(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Option<Action> {
    const KIND: &str = "DisruptionTarget";
    if pods::condition(pod, KIND).is_some_and(|condition| condition.status == "True") {
        return None;
    }
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != KIND);
    conditions.push(PodCondition {
        type_: KIND.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(meta::time(now)),
        ..PodCondition::default()
    });
    Some(Action::patch(pod, json!({"status": {"conditions": to_value(&conditions)}})).on_subresource("status"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::Value;

    fn pod(name: &str, tolerations: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": name}, "spec": {"nodeName": "n1", "tolerations": tolerations}})
    }

    fn names(model: &Model) -> Vec<String> {
        model.of_kind::<Pod>().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn pods_leave_when_their_tolerance_ends() {
        let unreachable = |seconds: Value| json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
            pod("none", &json!([])),
            pod("some", &unreachable(json!(300))),
            pod("ever", &unreachable(json!(null))),
            pod("all", &json!([{"operator": "Exists"}])),
        ]);
        let key = Key::cluster("n1");
        assert_eq!(model.step(&CONTROLLER, &key), 0);
        let now = model.now;
        let taint = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": now}]);
        model.merge::<Node>("", "n1", &json!({"spec": {"taints": taint}}));
        model.step(&CONTROLLER, &key);
        assert_eq!(names(&model), ["all", "ever", "some"]);
        model.pass(299);
        assert_eq!(model.step(&CONTROLLER, &key), 0);
        model.pass(1);
        model.step(&CONTROLLER, &key);
        assert_eq!(names(&model), ["all", "ever"]);
        assert_eq!(model.events.last().unwrap(), "TaintManagerEviction: Marking for deletion Pod d/some");
        assert_eq!(model.step(&CONTROLLER, &key), 0);
    }
}
