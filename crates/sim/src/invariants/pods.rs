//! Pods are bound once, to nodes that have room for them; they end once; nodes have networks of their own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Checked, Step};
use crate::state::{State, is_finished, text};

#[derive(Default)]
pub struct Pods;

impl Pods {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        if step.is("minions/") {
            return disjoint(state);
        }
        if !step.is("pods/") {
            return Ok(());
        }
        let (Some(new), old) = (step.after(), step.before()) else { return Ok(()) };
        let (before, after) = (old.map_or("", |pod| text(pod, "/spec/nodeName")), text(new, "/spec/nodeName"));
        if !before.is_empty() && before != after {
            return Err(format!("{} moved from {before} to {after}", step.key));
        }
        if let Some(old) = old.filter(|old| is_finished(old))
            && text(old, "/status/phase") != text(new, "/status/phase")
        {
            return Err(format!("{} had {} and now is {}", step.key, text(old, "/status/phase"), text(new, "/status/phase")));
        }
        if before.is_empty() && !after.is_empty() { room(after, state) } else { Ok(()) }
    }
}

/// The sum of what the pods of a node ask for is no more than it has.
fn room(node: &str, state: &State) -> Checked {
    let Some(object) = state.get(&format!("/registry/minions/{node}")) else { return Ok(()) };
    let on_node = || state.pods().filter(|pod| text(pod, "/spec/nodeName") == node && !is_finished(pod));
    let has = milli(object.pointer("/status/allocatable/cpu"));
    let wanted: u64 = on_node().map(requests).sum();
    if wanted > has {
        let names: Vec<_> = on_node().map(|pod| format!("{} {}m", text(pod, "/metadata/name"), requests(pod))).collect();
        return Err(format!("node {node} has {has}m of CPU, its pods want {wanted}m: {}", names.join(", ")));
    }
    Ok(())
}

fn requests(pod: &Value) -> u64 {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers.into_iter().flatten().map(|container| milli(container.pointer("/resources/requests/cpu"))).sum()
}

/// CPUs in thousandths, of the two forms that the simulation writes.
fn milli(quantity: Option<&Value>) -> u64 {
    let text = quantity.and_then(Value::as_str).unwrap_or_default();
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap_or(0),
        None => text.parse::<u64>().unwrap_or(0) * 1000,
    }
}

fn disjoint(state: &State) -> Checked {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, node) in state.under("/registry/minions/") {
        let network = text(node, "/spec/podCIDR");
        if !network.is_empty()
            && let Some(other) = taken.insert(network, key)
        {
            return Err(format!("{other} and {key} share {network}"));
        }
    }
    Ok(())
}
