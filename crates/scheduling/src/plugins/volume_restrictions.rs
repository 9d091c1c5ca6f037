//! VolumeRestrictions: disks that only one pod may mount at a time, and claims of access mode ReadWriteOncePod.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;
use crate::storage::pod_volumes;

pub const NAME: &str = "VolumeRestrictions";

/// How many other pods hold the pod's single-pod claims, wherever they run.
#[derive(Clone)]
struct Restrictions {
    exclusive_claims: BTreeSet<String>,
    conflicts: i64,
}

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    let volumes = pod_volumes(&pod.pod);
    let mut exclusive_claims = BTreeSet::new();
    for source in volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref()) {
        let Some(claim) = cluster.storage.claim(pod.namespace(), &source.claim_name) else {
            let reason = format!("persistentvolumeclaim {:?} not found", source.claim_name);
            return Prepared::Reject(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, reason));
        };
        let mut modes = claim.spec.iter().flat_map(|s| s.access_modes.iter().flatten());
        if modes.any(|m| m == "ReadWriteOncePod") {
            exclusive_claims.insert(source.claim_name.clone());
        }
    }
    let mut held = BTreeSet::new();
    if !exclusive_claims.is_empty() {
        for other in cluster.nodes.values().flat_map(|n| &n.pods) {
            held.extend(shared(&exclusive_claims, pod, other).map(str::to_owned));
        }
    }
    if held.is_empty() && !volumes.iter().any(is_exclusive_disk) {
        return Prepared::Skip;
    }
    let conflicts = i64::try_from(held.len()).unwrap_or(i64::MAX);
    Prepared::Check(Box::new(Restrictions { exclusive_claims, conflicts }))
}

/// Those of the claims that another pod uses too.
fn shared<'a>(claims: &'a BTreeSet<String>, pod: &PodInfo, other: &'a PodInfo) -> impl Iterator<Item = &'a str> {
    let same_namespace = other.namespace() == pod.namespace();
    let sources = pod_volumes(&other.pod).iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    sources.map(|s| s.claim_name.as_str()).filter(move |name| same_namespace && claims.contains(*name))
}

fn is_exclusive_disk(v: &Volume) -> bool {
    v.gce_persistent_disk.is_some() || v.aws_elastic_block_store.is_some() || v.rbd.is_some() || v.iscsi.is_some()
}

/// Two volumes that are one disk, which cannot be mounted twice so.
fn clash(a: &Volume, b: &Volume) -> bool {
    let writes = |a: Option<bool>, b: Option<bool>| a != Some(true) || b != Some(true);
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk) {
        return a.pd_name == b.pd_name && writes(a.read_only, b.read_only);
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi) {
        return a.iqn == b.iqn && writes(a.read_only, b.read_only);
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let monitors = a.monitors.iter().any(|m| b.monitors.contains(m));
        return monitors && a.pool == b.pool && a.image == b.image && writes(a.read_only, b.read_only);
    }
    false
}

impl Filter for Restrictions {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let theirs = || node.pods.iter().flat_map(|p| pod_volumes(&p.pod));
        let mut mine = pod_volumes(&pod.pod).iter().filter(|v| is_exclusive_disk(v));
        if mine.any(|v| theirs().any(|other| clash(v, other))) {
            return Err(Rejection::of(NAME, Code::Unschedulable, "node(s) had no available disk"));
        }
        if self.conflicts > 0 {
            let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
            return Err(Rejection::of(NAME, Code::Unschedulable, reason));
        }
        Ok(())
    }

    fn shift(&mut self, pod: &PodInfo, _: &NodeInfo, other: &PodInfo, delta: i64) {
        let count = shared(&self.exclusive_claims, pod, other).count();
        self.conflicts += delta * i64::try_from(count).unwrap_or(0);
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
