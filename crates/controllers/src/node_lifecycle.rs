//! Nodes that fall silent become Unknown, and conditions become taints. Upstream's `nodelifecycle`, but for eviction,
//! which is [`taint_eviction`](crate::taint_eviction).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use serde_json::{Value, json};

use crate::action::{Action, Event, Outcome, to_value};
use crate::view::{Context, Key, View, Watch, index};
use crate::{Controller, meta, pods};

pub const CONTROLLER: Controller = Controller {
    name: "node-lifecycle-controller",
    identity: "node-controller",
    component: "node-controller",
    watches: &[
        Watch::Nodes(|_, node| vec![meta::key(node)]),
        // When a node speaks is when that is heard of.
        Watch::Leases(|_, lease| vec![Key::cluster(meta::name(lease))]),
    ],
    reconcile,
};

pub const LEASE_NAMESPACE: &str = "kube-node-lease";
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that become taints: the condition, the status that is bad, the taint.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that a silent kubelet no longer vouches for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(node) = view.nodes.get("", &key.name) else { return Outcome::nothing() };
    if meta::is_deleting(&*node) {
        return Outcome::nothing();
    }
    let mut outcome = Outcome::nothing();
    let silent_in = silent_in(view, &node, context, &mut outcome);
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    if let Some(left) = silent_in {
        outcome.requeue_in(left + Duration::from_millis(10));
    } else {
        let was_ready = status_of(&conditions, "Ready") == Some("True");
        if doubt(&mut conditions, &node, context.now) {
            let patch = json!({"status": {"conditions": conditions}});
            let mut action = Action::patch(&*node, patch).on_subresource("status");
            if was_ready {
                let text = format!("Node {} status is now: NodeNotReady", key.name);
                action = action.tell_done(Event::normal(&*node, "NodeNotReady", text));
            }
            outcome.actions.push(action);
            return outcome;
        }
    }
    outcome.actions.extend(sync_taints(&node, &conditions, context.now));
    if matches!(status_of(&conditions, "Ready"), Some("False" | "Unknown")) {
        outcome.actions.extend(mark_pods(view, key, context.now));
    }
    outcome
}

/// How long the node may still be silent; `None`: it has been for too long. That its lease or its status tells of another time
/// than before says that it spoke, just now; not so the time itself: nobody's clock must be right, nor go on evenly. Nothing
/// counts that was heard before this process looked.
fn silent_in(view: &View<'_>, node: &Node, context: &Context<'_>, outcome: &mut Outcome) -> Option<Duration> {
    let lease = view.leases.get(LEASE_NAMESPACE, meta::name(node));
    let renewed = lease.and_then(|lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref().map(|time| time.0)));
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == "Ready");
    let beat = ready.filter(|ready| ready.status != "Unknown").and_then(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0));
    let grace = match ready {
        None => context.config.node_startup_grace_seconds,
        Some(_) => context.config.node_monitor_grace_seconds,
    };
    let now = i64::try_from(context.uptime.as_millis()).unwrap_or(i64::MAX);
    let before = context.memory.filter(|memory| memory["uid"] == meta::uid(node));
    // What is not told now, as the heartbeat of a node that we doubt, stays what it was.
    let told = |name: &str, time: Option<Timestamp>| match time {
        Some(time) => json!(time.as_microsecond()),
        None => before.map_or(Value::Null, |before| before[name].clone()),
    };
    let (renewed, beat) = (told("renewed", renewed), told("beat", beat));
    let silent = before.filter(|before| before["renewed"] == renewed && before["beat"] == beat);
    let heard = silent.and_then(|before| before["heard"].as_i64()).unwrap_or(now);
    outcome.memory = Some(json!({"uid": meta::uid(node), "renewed": renewed, "beat": beat, "heard": heard}));
    let left = heard.saturating_add(grace.saturating_mul(1000)).saturating_sub(now);
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis)
}

fn status_of<'a>(conditions: &'a [NodeCondition], kind: &str) -> Option<&'a str> {
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Makes conditions Unknown; whether any was not.
fn doubt(conditions: &mut Vec<NodeCondition>, node: &Node, now: Timestamp) -> bool {
    let mut changed = false;
    for kind in VOUCHED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(meta::time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(meta::time(now)),
                });
                changed = true;
            }
        }
    }
    changed
}

fn sync_taints(node: &Node, conditions: &[NodeCondition], now: Timestamp) -> Option<Action> {
    let spec = node.spec.as_ref();
    let old: &[Taint] = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, bad, taint) in TAINTS {
        if status_of(conditions, kind) == Some(bad) {
            wanted.push((taint, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((taint, "NoExecute"));
            }
        }
    }
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        let by_condition = TAINTS.iter().any(|(_, _, key)| taint.key == *key);
        let effect = taint.effect == "NoSchedule" || (taint.effect == "NoExecute" && matches!(taint.key.as_str(), NOT_READY | UNREACHABLE));
        (by_condition || taint.key == UNSCHEDULABLE) && effect
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut new: Vec<Taint> = old.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !old.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: Some(meta::time(now)) });
        }
    }
    (new != old).then(|| Action::patch(node, json!({"spec": {"taints": new}})))
}

/// Pods of a node that is not ready are not ready either.
fn mark_pods(view: &View<'_>, node: &Key, now: Timestamp) -> Option<Action> {
    let on_node = view.pods.by_index(index::NODE_NAME, &node.name);
    let marked: Vec<Action> = on_node.iter().filter(|pod| pods::is_ready(pod)).map(|pod| mark_pod(pod, now)).collect();
    (!marked.is_empty()).then_some(Action::Together(marked))
}

fn mark_pod(pod: &Pod, now: Timestamp) -> Action {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    for condition in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
        condition.status = "False".to_owned();
        condition.last_transition_time = Some(meta::time(now));
    }
    let event = Event::warning(pod, "NodeNotReady", "Node is not ready".to_owned());
    Action::patch(pod, json!({"status": {"conditions": to_value(&conditions)}})).on_subresource("status").tell_done(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, pod_status};

    fn cluster() -> Model {
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p"}, "spec": {"nodeName": "n1"}}),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": "kube-node-lease", "name": "n1"}, "spec": {}}),
        ]);
        let status = pod_status("Running", true, model.now);
        model.merge::<Pod>("d", "p", &status);
        beat(&mut model, "True");
        model
    }

    fn beat(model: &mut Model, ready: &str) {
        let now = model.now;
        let conditions = json!([{"type": "Ready", "status": ready, "lastHeartbeatTime": now}, {"type": "DiskPressure", "status": "True"}]);
        model.merge::<Node>("", "n1", &json!({"status": {"conditions": conditions}}));
        let renewed = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        model.merge::<k8s_openapi::api::coordination::v1::Lease>("kube-node-lease", "n1", &json!({"spec": {"renewTime": renewed}}));
    }

    fn taints(model: &Model) -> Vec<String> {
        let taints = model.get::<Node>("", "n1")["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())).collect()
    }

    #[test]
    fn a_silent_node_becomes_unreachable_and_comes_back() {
        let mut model = cluster();
        model.settle(&CONTROLLER, &Key::cluster("n1"));
        assert_eq!(taints(&model), ["mine:NoSchedule", "node.kubernetes.io/disk-pressure:NoSchedule"]);
        model.pass(49);
        assert_eq!(model.step(&CONTROLLER, &Key::cluster("n1")), 0);
        model.pass(1);
        model.settle(&CONTROLLER, &Key::cluster("n1"));
        let node = model.get::<Node>("", "n1");
        assert!(node["status"]["conditions"].as_array().unwrap().iter().all(|condition| condition["status"] == "Unknown"));
        assert_eq!(node["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
        assert_eq!(
            taints(&model),
            ["mine:NoSchedule", "node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
        );
        assert_eq!(model.get::<Pod>("d", "p")["status"]["conditions"][0]["status"], "False");
        assert_eq!(model.events, ["NodeNotReady: Node n1 status is now: NodeNotReady", "NodeNotReady: Node is not ready"]);
        beat(&mut model, "True");
        model.settle(&CONTROLLER, &Key::cluster("n1"));
        assert_eq!(taints(&model), ["mine:NoSchedule", "node.kubernetes.io/disk-pressure:NoSchedule"]);
    }

    #[test]
    fn a_node_whose_clock_is_behind_is_heard_all_the_same() {
        let mut model = cluster();
        let (key, true_now) = (Key::cluster("n1"), model.now);
        for round in 0..12 {
            let seconds = round * 10;
            model.now = true_now - jiff::SignedDuration::from_secs(7200 - seconds);
            beat(&mut model, "True");
            model.now = true_now + jiff::SignedDuration::from_secs(seconds);
            model.settle(&CONTROLLER, &key);
            assert_eq!(model.get::<Node>("", "n1")["status"]["conditions"][0]["status"], "True", "after {seconds} s");
        }
        model.pass(50);
        model.settle(&CONTROLLER, &key);
        assert_eq!(model.get::<Node>("", "n1")["status"]["conditions"][0]["status"], "Unknown");
    }

    #[test]
    fn a_node_whose_clock_is_set_is_heard_all_the_same() {
        let (mut model, key) = (cluster(), Key::cluster("n1"));
        // Each time it speaks its clock has lost some seconds more, or has jumped.
        for (round, behind) in [0, 9, 18, 27, 36, 45, 54, 63, 72, -3000, 40, 49, 58].into_iter().enumerate() {
            let now = model.now;
            model.now = now - jiff::SignedDuration::from_secs(behind);
            beat(&mut model, "True");
            model.now = now;
            model.settle(&CONTROLLER, &key);
            assert_eq!(taints(&model), ["mine:NoSchedule", "node.kubernetes.io/disk-pressure:NoSchedule"], "round {round}");
            model.pass(10);
        }
        model.pass(39);
        assert_eq!(model.step(&CONTROLLER, &key), 0, "50 s are not over");
        model.pass(1);
        model.settle(&CONTROLLER, &key);
        assert_eq!(model.get::<Node>("", "n1")["status"]["conditions"][0]["status"], "Unknown");
    }

    #[test]
    fn after_a_restart_nodes_have_time_to_speak() {
        let mut model = cluster();
        model.pass(3600);
        model.config.started_at = model.now;
        model.pass(10);
        model.settle(&CONTROLLER, &Key::cluster("n1"));
        assert_eq!(model.get::<Node>("", "n1")["status"]["conditions"][0]["status"], "True");
    }
}
