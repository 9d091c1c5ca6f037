//! VolumeBinding: whether a pod's bound volumes can be used from a node, and whether its unbound claims can be bound or
//! provisioned there. What exactly is to be bound is worked out again, by [`plan`], for the node that is chosen.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;
use crate::resources::amount;
use crate::selector::{Labels, Selector};
use crate::storage::{Storage, Volume, claim_bytes, claim_class, claim_key, claim_of, claim_volume, fully_bound, made_for, pod_volumes};

pub const NAME: &str = "VolumeBinding";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

type Claim = Arc<PersistentVolumeClaim>;

/// What has to be written and waited for before a pod can be bound to a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Volume names and the claims (`namespace/name`) they are to be bound to.
    pub bind: Vec<(String, String)>,
    /// Claims to be provisioned for the node.
    pub provision: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// The claims of a pod by what is still to be done about them.
#[derive(Clone)]
struct Claims {
    storage: Arc<Storage>,
    bound: Vec<Claim>,
    /// They wait for a node.
    unbound: Vec<Claim>,
}

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    match claims(&cluster.storage, pod) {
        Ok(None) => Prepared::Skip,
        Ok(Some(claims)) => Prepared::Check(Box::new(claims)),
        Err(stop) => stop,
    }
}

/// What binding `pod` to `node` takes; `None` if it cannot be done (any more).
pub fn plan(cluster: &Cluster, pod: &PodInfo, node: &NodeInfo) -> Option<Plan> {
    match claims(&cluster.storage, pod) {
        Ok(None) => Some(Plan::default()),
        Ok(Some(claims)) => claims.find(node).ok(),
        Err(_) => None,
    }
}

fn claims(storage: &Arc<Storage>, pod: &PodInfo) -> Result<Option<Claims>, Prepared> {
    let reject = |why: String| Prepared::Reject(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, why));
    let mut all = Vec::new();
    for volume in pod_volumes(&pod.pod) {
        let Some((name, ephemeral)) = claim_of(&pod.pod, volume) else { continue };
        let Some(claim) = storage.claim(pod.namespace(), &name) else {
            return Err(reject(if ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            }));
        };
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
            return Err(reject(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}", claim_volume(claim))));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(reject(format!("persistentvolumeclaim {name:?} is being deleted")));
        }
        if ephemeral {
            made_for(&pod.pod, claim).map_err(reject)?;
        }
        all.push(claim.clone());
    }
    if all.is_empty() {
        return Ok(None);
    }
    let mut out = Claims { storage: storage.clone(), bound: Vec::new(), unbound: Vec::new() };
    let mut immediate = false;
    for claim in all {
        if fully_bound(&claim) {
            out.bound.push(claim);
        } else if storage.waits_for_consumer(claim_class(&claim)).map_err(Prepared::Error)? && claim_volume(&claim).is_empty() {
            out.unbound.push(claim);
        } else {
            // Bound by the volume controller, without us.
            immediate = true;
        }
    }
    if immediate { Err(reject("pod has unbound immediate PersistentVolumeClaims".to_owned())) } else { Ok(Some(out)) }
}

impl Filter for Claims {
    fn check(&self, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        self.find(node).map(|_| ())
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Claims {
    /// `FindPodVolumes`.
    fn find(&self, node: &NodeInfo) -> Result<Plan, Rejection> {
        let mut reasons = Vec::new();
        for claim in &self.bound {
            match self.storage.volumes.get(claim_volume(claim)) {
                None => reasons.push(NO_VOLUME),
                Some(volume) if !volume.reachable(node.labels()) => reasons.push(NODE_CONFLICT),
                Some(_) => continue,
            }
            break;
        }
        let plan = match self.place_unbound(node) {
            Ok(plan) => plan,
            Err(Failure::Error(why)) => return Err(Rejection::of(NAME, Code::Error, why)),
            Err(Failure::Reason(reason)) => {
                // Upstream's order: affinity, binding, space, missing volume.
                let at = usize::from(reasons.first() == Some(&NODE_CONFLICT));
                reasons.insert(at, reason);
                Plan::default()
            }
        };
        if reasons.is_empty() {
            return Ok(plan);
        }
        let reasons = reasons.into_iter().map(str::to_owned).collect();
        Err(Rejection { plugin: NAME, code: Code::UnschedulableAndUnresolvable, reasons })
    }

    fn place_unbound(&self, node: &NodeInfo) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let mut provision: Vec<&Claim> = Vec::new();
        let mut to_match: Vec<&Claim> = Vec::new();
        for claim in &self.unbound {
            match self.storage.selected_node(claim) {
                Some(selected) if selected != node.name() => return Err(Failure::Reason(BIND_CONFLICT)),
                Some(_) => provision.push(claim),
                None => to_match.push(claim),
            }
        }
        // The smallest claim first, so that each gets the smallest volume that does.
        to_match.sort_by_key(|c| claim_bytes(c).unwrap_or(0));
        let mut chosen = BTreeSet::new();
        for claim in to_match {
            match self.smallest_volume(claim, node.labels(), &chosen) {
                Some(volume) => {
                    chosen.insert(volume.name());
                    plan.bind.push((volume.name().to_owned(), claim_key(claim)));
                }
                None => provision.push(claim),
            }
        }
        for claim in provision {
            self.provisionable(claim, node.labels())?;
            plan.provision.push(claim_key(claim));
        }
        Ok(plan)
    }

    /// `FindMatchingVolume`: the volume reserved for the claim, else the smallest that suits.
    fn smallest_volume(&self, claim: &PersistentVolumeClaim, labels: &Labels, taken: &BTreeSet<&str>) -> Option<&Volume> {
        let mut best: Option<&Volume> = None;
        let class = claim_class(claim);
        let key = claim_key(claim);
        for volume in self.storage.volumes.values().filter(|v| v.class() == class && !taken.contains(v.name())) {
            let assumed = self.storage.assumed_volumes.get(volume.name());
            let mine = volume.is_for(claim) || assumed == Some(&key);
            if (volume.has_claim() || assumed.is_some()) && !mine || !suits(volume, claim) {
                continue;
            }
            if mine {
                return volume.reachable(labels).then_some(volume);
            }
            let status = volume.object.status.as_ref();
            if status.and_then(|s| s.phase.as_deref()) == Some("Available")
                && selects(claim, volume)
                && volume.reachable(labels)
                && has_modes(volume, claim)
                && best.is_none_or(|b| b.capacity_bytes > volume.capacity_bytes)
            {
                best = Some(volume);
            }
        }
        best
    }

    /// `checkVolumeProvisions` for one claim.
    fn provisionable(&self, claim: &PersistentVolumeClaim, labels: &Labels) -> Result<(), Failure> {
        let name = claim_class(claim);
        if name.is_empty() {
            return Err(Failure::Error(format!("no class for claim {:?}", claim_key(claim))));
        }
        let Some(class) = self.storage.classes.get(name) else {
            return Err(Failure::Error(format!("failed to find storage class {name:?}")));
        };
        if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER || !allows(class, labels) {
            return Err(Failure::Reason(BIND_CONFLICT));
        }
        if self.has_room(claim, class, labels) { Ok(()) } else { Err(Failure::Reason(NO_SPACE)) }
    }

    /// Only drivers that publish their capacity are asked about it.
    fn has_room(&self, claim: &PersistentVolumeClaim, class: &StorageClass, labels: &Labels) -> bool {
        let Some(bytes) = claim_bytes(claim) else { return true };
        let driver = self.storage.csi_drivers.get(&class.provisioner);
        if driver.and_then(|d| d.spec.storage_capacity) != Some(true) {
            return true;
        }
        self.storage.capacities.values().any(|c| {
            let most = c.maximum_volume_size.as_ref().or(c.capacity.as_ref());
            Some(c.storage_class_name.as_str()) == class.metadata.name.as_deref()
                && most.is_some_and(|q| amount("storage", q) >= bytes)
                && Selector::of(c.node_topology.as_ref()).matches(labels)
        })
    }
}

enum Failure {
    Reason(&'static str),
    Error(String),
}

/// Size, mode and attributes class fit, and the volume is not going away.
fn suits(volume: &Volume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(v), Some(c)) = (&volume.object.spec, &claim.spec) else { return false };
    let mode = |m: &Option<String>| m.as_deref().unwrap_or("Filesystem").to_owned();
    let attributes = |a: &Option<String>| a.clone().unwrap_or_default();
    volume.capacity_bytes >= claim_bytes(claim).unwrap_or(0)
        && mode(&v.volume_mode) == mode(&c.volume_mode)
        && attributes(&v.volume_attributes_class_name) == attributes(&c.volume_attributes_class_name)
        && volume.object.metadata.deletion_timestamp.is_none()
}

fn selects(claim: &PersistentVolumeClaim, volume: &Volume) -> bool {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_none() || Selector::of(selector).matches(volume.object.metadata.labels.as_ref().unwrap_or(&Labels::new()))
}

fn has_modes(volume: &Volume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.object.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or(&[]);
    claim.spec.iter().flat_map(|s| s.access_modes.iter().flatten()).all(|m| offered.contains(m))
}

/// `MatchTopologySelectorTerms`: no terms allow every node, an empty term none.
fn allows(class: &StorageClass, labels: &Labels) -> bool {
    let Some(terms) = class.allowed_topologies.as_deref().filter(|t| !t.is_empty()) else { return true };
    terms.iter().any(|term| {
        let expressions = term.match_label_expressions.as_deref().unwrap_or(&[]);
        !expressions.is_empty() && expressions.iter().all(|e| labels.get(&e.key).is_some_and(|v| e.values.contains(v)))
    })
}
