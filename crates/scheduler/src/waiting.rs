//! Pods that have a node and wait there for their volumes: the claims were written, and somebody else (the volume
//! controller, a provisioner) has to bind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scheduling::plugins::dynamic_resources;
use scheduling::storage::{SELECTED_NODE, Storage, annotation, claim_volume, fully_bound};
use scheduling::{Cluster, PodInfo};

/// Upstream's `bindTimeoutSeconds`.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(600);

/// A pod whose volumes are on their way.
#[derive(Debug)]
pub struct Pending {
    pub pod: Arc<PodInfo>,
    pub node: String,
    pub devices: dynamic_resources::Plan,
    /// Claims (`namespace/name`) still to be bound.
    claims: Vec<String>,
    /// Those of them that were seen to name the node: if one no longer does, its provisioner has given up there.
    selected: Vec<String>,
    until: Timestamp,
}

/// By pod, `namespace/name`.
#[derive(Debug, Default)]
pub struct Waiting(BTreeMap<String, Pending>);

impl Waiting {
    pub fn add(&mut self, pod: Arc<PodInfo>, node: String, claims: Vec<String>, devices: dynamic_resources::Plan, now: Timestamp) {
        let until = now.checked_add(TIMEOUT).unwrap_or(Timestamp::MAX);
        self.0.insert(pod.key(), Pending { pod, node, devices, claims, selected: Vec::new(), until });
    }

    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub fn next_at(&self) -> Option<Timestamp> {
        self.0.values().map(|p| p.until).min()
    }

    /// Takes out the pods whose waiting is over, with the reason where it was in vain.
    pub fn settle(&mut self, cluster: &Cluster, now: Timestamp) -> Vec<(Pending, Option<String>)> {
        let mut over = Vec::new();
        for (key, pending) in &mut self.0 {
            match pending.look(cluster) {
                Ok(true) => over.push((key.clone(), None)),
                Ok(false) if pending.until > now => {}
                Ok(false) => over.push((key.clone(), Some("binding volumes: timed out waiting for the condition".to_owned()))),
                Err(why) => over.push((key.clone(), Some(format!("binding volumes: {why}")))),
            }
        }
        over.into_iter().filter_map(|(key, why)| Some((self.0.remove(&key)?, why))).collect()
    }
}

impl Pending {
    /// Whether all claims are bound to volumes that the node can use.
    fn look(&mut self, cluster: &Cluster) -> Result<bool, String> {
        let labels = cluster.nodes.get(&self.node).ok_or_else(|| format!("node {:?} not found", self.node))?.labels();
        let storage: &Storage = &cluster.storage;
        let mut all = true;
        for key in &self.claims {
            let claim = storage.claims.get(key).ok_or_else(|| format!("persistentvolumeclaim {key:?} not found"))?;
            if fully_bound(claim) {
                match storage.volumes.get(claim_volume(claim)) {
                    Some(volume) if !volume.reachable(labels) => {
                        return Err(format!("pv {:?} node affinity doesn't match node {:?}", volume.name(), self.node));
                    }
                    Some(_) => {}
                    None => all = false,
                }
                continue;
            }
            all = false;
            if annotation(claim, SELECTED_NODE) == Some(&self.node) {
                if !self.selected.contains(key) {
                    self.selected.push(key.clone());
                }
            } else if self.selected.contains(key) {
                return Err(format!("selectedNode annotation reset for PVC {key:?}"));
            }
        }
        Ok(all)
    }
}
