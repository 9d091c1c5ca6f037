//! What must hold at every moment, told from the changes of pods and ReplicaSets as an informer shows them.

use std::collections::{BTreeMap, BTreeSet};

use client::Change;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Node, Pod};

#[derive(Default)]
pub struct Invariants {
    pub trace: Vec<String>,
    /// Largest size that each ReplicaSet was ever asked to have, by UID.
    asked: BTreeMap<String, i32>,
    /// Pods that are neither finished nor being deleted, by the UID of their ReplicaSet.
    active: BTreeMap<String, BTreeSet<String>>,
}

impl Invariants {
    pub fn set(&mut self, change: &Change<ReplicaSet>) {
        let Some(set) = &change.new else { return };
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let asked = self.asked.entry(set.metadata.uid.clone().unwrap_or_default()).or_default();
        *asked = (*asked).max(replicas);
        self.trace.push(format!("replicaset {} wants {replicas}", change.key));
    }

    /// Errors with what does not hold.
    pub fn pod(&mut self, change: &Change<Pod>) -> Result<(), String> {
        let before = change.old.as_ref().map(|pod| node_of(pod)).unwrap_or_default();
        let after = change.new.as_ref().map(|pod| node_of(pod)).unwrap_or_default();
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.metadata.uid == new.metadata.uid
            && !before.is_empty()
            && before != after
        {
            return Err(format!("pod {} moved from {before} to {after}", change.key));
        }
        let state = change.new.as_ref().map_or("gone".to_owned(), |pod| describe(pod));
        self.trace.push(format!("pod {} {state}", change.key));
        self.count(change)
    }

    /// A ReplicaSet never has more active pods than it was ever asked to have: its controller does not act on a cache that
    /// is behind its own writes.
    fn count(&mut self, change: &Change<Pod>) -> Result<(), String> {
        let pod = change.new.as_ref().or(change.old.as_ref());
        let owner = pod.and_then(|pod| controllers::meta::controller(&**pod).map(|owner| owner.uid.clone()));
        let Some(owner) = owner else { return Ok(()) };
        let active = self.active.entry(owner.clone()).or_default();
        if change.new.as_ref().is_some_and(|pod| controllers::pods::is_active(pod)) {
            active.insert(change.key.to_string());
        } else {
            active.remove(&change.key.to_string());
        }
        // Pods may be seen before their ReplicaSet.
        match self.asked.get(&owner) {
            Some(asked) if i32::try_from(active.len()).is_ok_and(|count| count > *asked) => {
                Err(format!("the ReplicaSet of pod {} has {} active pods but never wanted more than {asked}", change.key, active.len()))
            }
            _ => Ok(()),
        }
    }
}

fn node_of(pod: &Pod) -> String {
    controllers::pods::node_name(pod).to_owned()
}

fn describe(pod: &Pod) -> String {
    let deleting = if pod.metadata.deletion_timestamp.is_some() { ", deleting" } else { "" };
    let ready = if controllers::pods::is_ready(pod) { ", ready" } else { "" };
    format!("on {:?} {}{ready}{deleting}", controllers::pods::node_name(pod), controllers::pods::phase(pod))
}

/// No two nodes share addresses.
pub fn networks_are_disjoint<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<(), String> {
    let mut taken = BTreeMap::new();
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        for network in node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()) {
            if let Some(other) = taken.insert(network.clone(), name.clone()) {
                return Err(format!("nodes {other} and {name} share {network}"));
            }
        }
    }
    Ok(())
}
