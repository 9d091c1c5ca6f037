//! What a work queue is counted by. Called by the queue; holds when its keys came and went.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Registry;
use client::metrics::{QUEUE_ADDS, QUEUE_DEPTH, QUEUE_LONGEST, QUEUE_RETRIES, QUEUE_UNFINISHED, QUEUE_WAIT, QUEUE_WORK};
use telemetry::metrics::Histogram;
use tokio::time::Instant;

/// Upstream's names of the queues whose controllers are called otherwise, but for `-controller` at the end.
const NAMES: &[(&str, &str)] = &[
    ("bootstrap-signer-controller", "bootstrap_signer_queue"),
    ("certificatesigningrequest-approving-controller", "certificate"),
    ("certificatesigningrequest-cleaner-controller", "certificate"),
    ("certificatesigningrequest-signing-controller", "certificate"),
    ("clusterrole-aggregation-controller", "ClusterRoleAggregator"),
    ("endpoints-controller", "endpoint"),
    ("endpointslice-controller", "endpoint_slice"),
    ("endpointslice-mirroring-controller", "endpoint_slice_mirroring"),
    ("ephemeral-volume-controller", "ephemeral_volume"),
    ("generic-garbage-collector", "garbage_collector_attempt_to_delete"),
    ("node-ipam-controller", "node"),
    ("node-lifecycle-controller", "node_lifecycle_controller"),
    ("persistentvolume-binder-controller", "claims"),
    ("persistentvolume-protection-controller", "pvprotection"),
    ("persistentvolumeclaim-protection-controller", "pvcprotection"),
    ("pod-garbage-collector-controller", "pod_gc"),
    ("replicationcontroller-controller", "replicationmanager"),
    ("resourcequota-controller", "resourcequota_primary"),
    ("root-ca-certificate-publisher-controller", "root_ca_cert_publisher"),
    ("service-lb-controller", "service"),
    ("serviceaccount-token-controller", "serviceaccount_tokens_secret"),
    ("taint-eviction-controller", "noexec_taint_pod"),
    ("token-cleaner-controller", "token_cleaner"),
    ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
    ("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status"),
];

/// What a controller's queue is called in metrics.
pub fn queue_name(controller: &'static str) -> &'static str {
    let named = NAMES.iter().find(|(name, _)| *name == controller).map(|(_, queue)| *queue);
    named.unwrap_or_else(|| controller.strip_suffix("-controller").unwrap_or(controller))
}

/// The series of one queue, found once.
pub struct Meter<K> {
    depth: Arc<Histogram>,
    adds: Arc<Histogram>,
    wait: Arc<Histogram>,
    work: Arc<Histogram>,
    unfinished: Arc<Histogram>,
    longest: Arc<Histogram>,
    retries: Arc<Histogram>,
    waiting: BTreeMap<K, Instant>,
    running: BTreeMap<K, Instant>,
    /// What was told of running keys is not 0.
    told: bool,
}

impl<K> std::fmt::Debug for Meter<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}

impl<K: Ord + Clone> Meter<K> {
    pub fn new(name: &str, registry: &Registry) -> Self {
        let of = |desc| registry.family(desc).with(&[name]);
        Self {
            depth: of(&QUEUE_DEPTH),
            adds: of(&QUEUE_ADDS),
            wait: of(&QUEUE_WAIT),
            work: of(&QUEUE_WORK),
            unfinished: of(&QUEUE_UNFINISHED),
            longest: of(&QUEUE_LONGEST),
            retries: of(&QUEUE_RETRIES),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            told: false,
        }
    }

    pub fn added(&mut self, key: &K) {
        self.adds.add(1.0);
        self.depth.add(1.0);
        self.waiting.insert(key.clone(), Instant::now());
    }

    pub fn started(&mut self, key: &K) {
        let now = Instant::now();
        self.depth.add(-1.0);
        if let Some(since) = self.waiting.remove(key) {
            self.wait.observe(now.duration_since(since).as_secs_f64());
        }
        self.running.insert(key.clone(), now);
    }

    pub fn finished(&mut self, key: &K, failed: bool) {
        if let Some(since) = self.running.remove(key) {
            self.work.observe(since.elapsed().as_secs_f64());
        }
        if failed {
            self.retries.add(1.0);
        }
    }

    pub fn look(&mut self) {
        let ages = || self.running.values().map(|since| since.elapsed().as_secs_f64());
        self.unfinished.set(ages().sum());
        self.longest.set(ages().fold(0.0, f64::max));
        self.told = !self.running.is_empty();
    }

    /// Whether looking would tell anything new.
    pub fn is_busy(&self) -> bool {
        self.told || !self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_controllers() {
        let own = [crate::garbage::NAME, crate::namespaces::NAME];
        for (name, _) in NAMES {
            let known = own.contains(name) || controllers::TABLE.iter().any(|c| c.name == *name || c.identity == *name);
            assert!(known, "{name}");
        }
        assert_eq!((queue_name("deployment-controller"), queue_name("endpoints-controller")), ("deployment", "endpoint"));
    }
}
