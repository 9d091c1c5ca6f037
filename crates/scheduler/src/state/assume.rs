//! Decisions taken for granted until they are seen back: the pod on its node, its volumes and devices spoken for.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use scheduling::PodInfo;
use scheduling::plugins::{Wake, dynamic_resources, volume_binding};

use super::{Assumed, State};
use crate::execute::Effect;
use crate::prebind::VolumeWrites;

impl State {
    /// A pod has its node: what is written first, a binding or what it depends on.
    pub(super) fn assume(&mut self, pod: Arc<PodInfo>, node: String, now: Timestamp) -> Effect {
        let key = pod.key();
        let here = self.cluster.nodes.get(&node);
        let volumes = here.and_then(|n| volume_binding::plan(&self.cluster, &pod, n)).unwrap_or_default();
        let devices = here.and_then(|n| dynamic_resources::plan(&self.cluster, &pod, n)).unwrap_or_default();
        let writes = self.volume_writes(&volumes);
        if !volumes.is_empty() {
            let storage = Arc::make_mut(&mut self.cluster.storage);
            storage.assumed_volumes.extend(volumes.bind.iter().cloned());
            storage.assumed_claims.extend(volumes.provision.iter().map(|claim| (claim.clone(), node.clone())));
        }
        let mut claims = Vec::new();
        if !devices.is_empty() {
            let known = Arc::make_mut(&mut self.cluster.devices);
            let named = devices.claims.iter().filter_map(|(key, allocation)| Some((key.clone(), allocation.clone()?)));
            let extended = devices.extended.iter().map(|(_, allocation)| (extended_key(pod.uid()), allocation.clone()));
            for (claim, allocation) in named.chain(extended) {
                known.assumed.insert(claim.clone(), allocation);
                claims.push(claim);
            }
        }
        self.cluster.nominated.remove(&key);
        self.cluster.place(&node, pod.clone());
        let waits = !volumes.is_empty();
        self.assumed.insert(key, Assumed { uid: pod.uid().to_owned(), volumes, claims });
        if waits { Effect::Volumes { pod, node, writes, devices } } else { Effect::Bind { pod, node, devices, now } }
    }

    fn volume_writes(&self, plan: &volume_binding::Plan) -> VolumeWrites {
        let storage = &self.cluster.storage;
        let claim = |key: &String| storage.claims.get(key).cloned();
        let bind = plan.bind.iter().filter_map(|(volume, key)| Some((storage.volumes.get(volume)?.object.clone(), claim(key)?)));
        VolumeWrites { bind: bind.collect(), provision: plan.provision.iter().filter_map(claim).collect() }
    }

    /// The pod's volumes are no longer merely assumed: they are bound, or will not be. Devices stay assumed until their
    /// claim is seen, lest they be given away in between.
    pub(super) fn settled(&mut self, key: &str) -> Option<Assumed> {
        let assumed = self.assumed.remove(key)?;
        self.waiting.remove(key);
        if !assumed.volumes.is_empty() {
            let storage = Arc::make_mut(&mut self.cluster.storage);
            for (volume, _) in &assumed.volumes.bind {
                storage.assumed_volumes.remove(volume);
            }
            for claim in &assumed.volumes.provision {
                storage.assumed_claims.remove(claim);
            }
        }
        Some(assumed)
    }

    /// Goes on with the pods whose volumes have come, and takes back those whose volumes will not.
    pub(super) fn settle(&mut self) {
        let (now, time) = (self.now(), self.time_of_day());
        for (pending, failure) in self.waiting.settle(&self.cluster, now) {
            let key = pending.pod.key();
            match failure {
                None => self.ready.push_back(Effect::Bind { pod: pending.pod, node: pending.node, devices: pending.devices, now: time }),
                Some(message) => {
                    self.forget(&key);
                    self.queue.retry(&key, now);
                    self.queue.wake(Wake::PodGone, now);
                    let (nominate, victims) = (None, Vec::new());
                    let tell = Effect::Tell {
                        pod: pending.pod,
                        reason: "SchedulerError",
                        message,
                        nominate,
                        victims,
                        free_claim: None,
                        now: time,
                    };
                    self.ready.push_back(tell);
                }
            }
        }
    }
}

/// Where the allocation of a claim that is yet to be created is kept.
pub(super) fn extended_key(pod_uid: &str) -> String {
    format!("extended resources of {pod_uid}")
}
