//! Which pods may not enter the queue at all (upstream's PreEnqueue): those of other schedulers, gated ones, and those whose
//! resource claims do not exist yet.

use crate::cluster::Cluster;
use crate::pod::PodInfo;

/// Why a pod is not even tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It names another scheduler.
    NotOurs,
    /// `spec.schedulingGates`; the API server says so in its condition.
    Gated,
    /// A plugin waits for something to come into being. Nothing is written about it.
    Waiting(String),
}

/// `scheduler` is the name pods call us by.
pub fn held_back(cluster: &Cluster, pod: &PodInfo, scheduler: &str) -> Option<Hold> {
    let spec = pod.pod.spec.as_ref();
    let named = spec.and_then(|s| s.scheduler_name.as_deref()).filter(|n| !n.is_empty()).unwrap_or("default-scheduler");
    if named != scheduler {
        return Some(Hold::NotOurs);
    }
    if spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty()) {
        return Some(Hold::Gated);
    }
    cluster.devices.claims_of(&pod.pod).err().map(Hold::Waiting)
}
