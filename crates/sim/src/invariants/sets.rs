//! Sets have no more pods than they may: ReplicaSets as many as they were asked for, Deployments no more than a rollout's
//! surge on top, DaemonSets one per node, StatefulSets one that runs per name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Checked, LATE, Recent, Step};
use crate::state::{State, controller, has_condition, is_active, number, owners, text, uid_of};

#[derive(Default)]
pub struct Sets {
    /// Replicas asked for, by UID of the set; of Deployments with the surge.
    asked: BTreeMap<String, Recent>,
}

impl Sets {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        if let Some(set) = step.after() {
            if step.is("replicasets/") {
                self.asked.entry(uid_of(set).to_owned()).or_default().set(step.now, number(set, "/spec/replicas"));
                return self.surge(step, set, state);
            }
            if step.is("deployments/") {
                let replicas = number(set, "/spec/replicas");
                let surge = portion(set.pointer("/spec/strategy/rollingUpdate/maxSurge"), replicas, true);
                self.asked.entry(uid_of(set).to_owned()).or_default().set(step.now, replicas + surge);
            }
        }
        if !step.is("pods/") {
            return Ok(());
        }
        if let (Some(old), None) = (step.before(), step.after()) {
            return removed(step, old, state);
        }
        let (None, Some(pod)) = (step.before(), step.after()) else { return Ok(()) };
        let owner = owners(pod).iter().find(|owner| owner["controller"] == true);
        match (owner.and_then(|owner| owner["kind"].as_str()), controller(pod)) {
            (Some("ReplicaSet" | "ReplicationController"), Some(uid)) => self.replicas(step, uid, state),
            (Some("DaemonSet"), Some(uid)) => daemons(step, uid, pod, state),
            _ => Ok(()),
        }
    }

    /// No pods beyond those asked for, though the controller's cache may be behind its own writes.
    fn replicas(&self, step: &Step<'_>, uid: &str, state: &State) -> Checked {
        let Some(asked) = self.asked.get(uid) else { return Ok(()) };
        let (active, most) = (state.pods_of(uid).filter(|pod| is_active(pod)).count(), asked.max(step.now, LATE));
        if i64::try_from(active).is_ok_and(|active| active <= most) {
            return Ok(());
        }
        Err(format!("with {} its set has {active} pods, and was asked for {most} at most", step.key))
    }

    /// When a ReplicaSet grows, all of its Deployment together are within the surge.
    fn surge(&self, step: &Step<'_>, set: &Value, state: &State) -> Checked {
        let before = step.before().map_or(0, |old| number(old, "/spec/replicas"));
        if number(set, "/spec/replicas") <= before || !step.who.ends_with(":deployment-controller") {
            return Ok(());
        }
        let Some(uid) = controller(set) else { return Ok(()) };
        let Some(asked) = self.asked.get(uid) else { return Ok(()) };
        let of_same = state.under("/registry/replicasets/").filter(|(_, set)| controller(set) == Some(uid));
        let (sum, most) = (of_same.map(|(_, set)| number(set, "/spec/replicas")).sum::<i64>(), asked.max(step.now, LATE));
        if sum <= most { Ok(()) } else { Err(format!("with {} its Deployment's sets ask for {sum} pods, of {most}", step.key)) }
    }
}

/// At most one active pod of a DaemonSet per node, and as many more as its surge.
fn daemons(step: &Step<'_>, uid: &str, pod: &Value, state: &State) -> Checked {
    let node = target_node(pod);
    let set = state.under("/registry/daemonsets/").find(|(_, set)| uid_of(set) == uid);
    let surges = set.is_some_and(|(_, set)| portion(set.pointer("/spec/updateStrategy/rollingUpdate/maxSurge"), 100, true) > 0);
    let count = state.pods_of(uid).filter(|pod| is_active(pod) && target_node(pod) == node).count();
    if count <= 1 + usize::from(surges) { Ok(()) } else { Err(format!("{} is number {count} of its DaemonSet on {node}", step.key)) }
}

/// Where a daemon is or must go.
fn target_node(pod: &Value) -> &str {
    let bound = text(pod, "/spec/nodeName");
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    if bound.is_empty() { text(pod, terms) } else { bound }
}

/// A StatefulSet's pod is not forgotten while it may run: its kubelet says that it has ended, or its node is gone.
fn removed(step: &Step<'_>, old: &Value, state: &State) -> Checked {
    let of_set = owners(old).iter().any(|owner| owner["kind"] == "StatefulSet");
    let node = text(old, "/spec/nodeName");
    let node_is_there = state.get(&format!("/registry/minions/{node}")).is_some();
    let by_its_kubelet = step.who == format!("system:node:{node}");
    if !of_set || node.is_empty() || !node_is_there || by_its_kubelet || crate::state::is_finished(old) {
        return Ok(());
    }
    let ready = has_condition(old, "Ready");
    Err(format!("{} was removed by {} though {node} may still run it (ready: {ready})", step.key, step.who))
}

/// A number or a percentage.
pub fn portion(value: Option<&Value>, of: i64, up: bool) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            (of * percent + if up { 99 } else { 0 }) / 100
        }
        _ => 0,
    }
}
