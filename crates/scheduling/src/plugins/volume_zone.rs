//! VolumeZone: volumes that are labelled with a zone or region can only be used there.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;
use crate::storage::{claim_class, claim_volume, pod_volumes};

pub const NAME: &str = "VolumeZone";

/// Topology labels, each with the one that replaced it.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// What a volume demands: label, its successor, and the values that will do.
type Demand = (&'static str, &'static str, BTreeSet<String>);

#[derive(Clone)]
struct Zones(Vec<Demand>);

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    match zones(cluster, pod) {
        Err(reason) => Prepared::Reject(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, reason)),
        Ok(zones) if zones.is_empty() => Prepared::Skip,
        Ok(zones) => Prepared::Check(Box::new(Zones(zones))),
    }
}

fn zones(cluster: &Cluster, pod: &PodInfo) -> Result<Vec<Demand>, String> {
    let storage = &cluster.storage;
    let mut out = Vec::new();
    for source in pod_volumes(&pod.pod).iter().filter_map(|v| v.persistent_volume_claim.as_ref()) {
        let Some(claim) = storage.claim(pod.namespace(), &source.claim_name) else {
            return Err(format!("persistentvolumeclaim {:?} not found", source.claim_name));
        };
        let name = claim_volume(claim);
        if name.is_empty() {
            let class = claim_class(claim);
            if class.is_empty() {
                return Err("PersistentVolumeClaim had no pv name and storageClass name".to_owned());
            }
            if !storage.classes.contains_key(class) {
                return Err(format!("storageclass.storage.k8s.io {class:?} not found"));
            }
            if storage.waits_for_consumer(class)? {
                continue;
            }
            return Err("PersistentVolume had no name".to_owned());
        }
        let Some(volume) = storage.volumes.get(name) else { return Err(format!("persistentvolume {name:?} not found")) };
        let labels = volume.object.metadata.labels.as_ref();
        for (label, successor) in LABELS {
            // Several zones are joined by two underscores; an empty one makes the label void.
            let values = labels.and_then(|l| l.get(label)).map(|v| v.split("__").map(|z| z.trim().to_owned()));
            let Some(values) = values.map(|v| v.collect::<BTreeSet<String>>()) else { continue };
            if !values.contains("") {
                out.push((label, successor, values));
            }
        }
    }
    Ok(out)
}

impl Filter for Zones {
    fn check(&self, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = node.labels();
        if !LABELS.iter().any(|(label, _)| labels.contains_key(*label)) {
            return Ok(());
        }
        let holds = |label: &str, successor: &str, values: &BTreeSet<String>| {
            labels.get(label).or_else(|| labels.get(successor)).is_some_and(|v| values.contains(v))
        };
        if self.0.iter().all(|(label, successor, values)| holds(label, successor, values)) {
            return Ok(());
        }
        Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "node(s) had no available volume zone"))
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
