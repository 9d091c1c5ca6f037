//! NodeVolumeLimits: how many volumes of a CSI driver a node can have attached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;
use crate::storage::{Storage, claim_class, claim_key, claim_of, claim_volume, made_for, pod_volumes};

pub const NAME: &str = "NodeVolumeLimits";

#[derive(Clone)]
struct Limits {
    storage: Arc<Storage>,
    /// Of the pod itself: the same on every node.
    wanted: Result<Volumes, Rejection>,
}

/// Volumes, each by driver and handle.
type Volumes = BTreeSet<(String, String)>;

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    if !pod_volumes(&pod.pod).iter().any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()) {
        return Prepared::Skip;
    }
    let storage = cluster.storage.clone();
    let mut volumes = Volumes::new();
    let wanted = attachable(&storage, pod, true, &mut volumes).map(|()| volumes);
    Prepared::Check(Box::new(Limits { storage, wanted }))
}

/// Adds the CSI volumes of a pod. A missing claim matters to a new pod only.
fn attachable(storage: &Storage, pod: &PodInfo, new: bool, out: &mut Volumes) -> Result<(), Rejection> {
    for volume in pod_volumes(&pod.pod) {
        let Some((name, ephemeral)) = claim_of(&pod.pod, volume) else { continue };
        let Some(claim) = storage.claim(pod.namespace(), &name) else {
            if new {
                let reason = format!("looking up PVC {}/{name}: persistentvolumeclaim {name:?} not found", pod.namespace());
                return Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, reason));
            }
            continue;
        };
        if ephemeral {
            made_for(&pod.pod, claim).map_err(|why| Rejection::of(NAME, Code::Error, why))?;
        }
        if let Some(volume) = csi_volume(storage, claim) {
            out.insert(volume);
        }
    }
    Ok(())
}

/// Driver and handle of the volume behind a claim; one not provisioned yet counts under a name of its own.
fn csi_volume(storage: &Storage, claim: &PersistentVolumeClaim) -> Option<(String, String)> {
    if let Some(volume) = storage.volumes.get(claim_volume(claim)) {
        let csi = volume.object.spec.as_ref()?.csi.as_ref()?;
        return Some((csi.driver.clone(), csi.volume_handle.clone()));
    }
    let class = storage.classes.get(claim_class(claim))?;
    Some((class.provisioner.clone(), format!("unprovisioned {}", claim_key(claim))))
}

impl Filter for Limits {
    fn check(&self, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let wanted = self.wanted.as_ref().map_err(Clone::clone)?;
        let Some(csi_node) = self.storage.csi_nodes.get(node.name()).filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let limits = csi_node.spec.drivers.iter().filter_map(|d| Some((d.name.as_str(), d.allocatable.as_ref()?.count?)));
        let limits: BTreeMap<&str, i32> = limits.collect();
        if limits.is_empty() {
            return Ok(());
        }
        let mut attached = Volumes::new();
        for other in &node.pods {
            attachable(&self.storage, other, false, &mut attached)?;
        }
        for (driver, limit) in limits {
            let count = |volumes: &mut dyn Iterator<Item = &(String, String)>| volumes.filter(|(d, _)| d == driver).count();
            let new = count(&mut wanted.iter().filter(|v| !attached.contains(*v)));
            if new > 0 && count(&mut attached.iter()) + new > usize::try_from(limit).unwrap_or(0) {
                return Err(Rejection::of(NAME, Code::Unschedulable, "node(s) exceed max volume count"));
            }
        }
        Ok(())
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
