//! Claims, volumes, classes and what CSI drivers offer, as the volume plugins look at them. It decides nothing: the plugins
//! `volume_*` do.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume as PodVolume};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::resources::amount;
use crate::selector::{Labels, NodeTerm};

/// Which node a claim is provisioned for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On claims whose binding is complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Everything about storage that a decision looks at.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// By `namespace/name`.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    pub volumes: BTreeMap<String, Volume>,
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    pub csi_nodes: BTreeMap<String, Arc<CSINode>>,
    pub csi_drivers: BTreeMap<String, Arc<CSIDriver>>,
    /// By `namespace/name`.
    pub capacities: BTreeMap<String, Arc<CSIStorageCapacity>>,
    /// Decided and not yet seen back: volume to the claim (`namespace/name`) it is to be bound to.
    pub assumed_volumes: BTreeMap<String, String>,
    /// Likewise: claim to the node it is to be provisioned for.
    pub assumed_claims: BTreeMap<String, String>,
}

/// A volume with its node affinity compiled.
#[derive(Clone, Debug)]
pub struct Volume {
    pub object: Arc<PersistentVolume>,
    /// `None`: may be used from any node.
    affinity: Option<Vec<NodeTerm>>,
    pub capacity_bytes: i64,
}

impl Volume {
    pub fn new(object: Arc<PersistentVolume>) -> Self {
        let spec = object.spec.as_ref();
        let required = spec.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
        let affinity =
            required.map(|r| r.node_selector_terms.iter().enumerate().map(|(i, t)| NodeTerm::of(t, i).unwrap_or_default()).collect());
        let capacity_bytes = storage_bytes(spec.and_then(|s| s.capacity.as_ref())).unwrap_or(0);
        Self { object, affinity, capacity_bytes }
    }

    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or("")
    }

    /// Whether a node with these labels can use it (`volume.CheckNodeAffinity`: labels alone, not the name).
    pub fn reachable(&self, labels: &Labels) -> bool {
        self.affinity.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches("", labels)))
    }

    pub fn class(&self) -> &str {
        class_of(&self.object.metadata, self.object.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()))
    }

    /// Whether its `claimRef` names exactly this claim (`IsVolumeBoundToClaim`).
    pub fn is_for(&self, claim: &PersistentVolumeClaim) -> bool {
        let Some(reference) = self.object.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return false };
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    }

    pub fn has_claim(&self) -> bool {
        self.object.spec.as_ref().is_some_and(|s| s.claim_ref.is_some())
    }
}

fn class_of<'a>(metadata: &'a ObjectMeta, named: Option<&'a str>) -> &'a str {
    metadata.annotations.as_ref().and_then(|a| a.get(CLASS)).map(String::as_str).or(named).unwrap_or("")
}

/// A claim's storage class, empty if none.
pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    class_of(&claim.metadata, claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()))
}

/// The volume a claim names, empty if none.
pub fn claim_volume(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("")
}

pub fn claim_bytes(claim: &PersistentVolumeClaim) -> Option<i64> {
    storage_bytes(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref())
}

fn storage_bytes(list: Option<&BTreeMap<String, Quantity>>) -> Option<i64> {
    list?.get("storage").map(|q| amount("storage", q))
}

/// Both sides agree: the claim names its volume and the controller has said so.
pub fn fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !claim_volume(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

pub fn claim_key(claim: &PersistentVolumeClaim) -> String {
    let part = |s: &Option<String>| s.clone().unwrap_or_default();
    format!("{}/{}", part(&claim.metadata.namespace), part(&claim.metadata.name))
}

/// The name of the claim behind a pod's volume, and whether the claim is made for the pod (generic ephemeral volumes).
pub fn claim_of(pod: &Pod, volume: &PodVolume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref()?;
    Some((format!("{}-{}", pod.metadata.name.as_deref().unwrap_or(""), volume.name), true))
}

/// All volumes of a pod.
pub fn pod_volumes(pod: &Pod) -> &[PodVolume] {
    pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or(&[])
}

/// An ephemeral volume's claim must be controlled by its pod (`ephemeral.VolumeIsForPod`).
pub fn made_for(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let owner = claim.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    if claim.metadata.namespace == pod.metadata.namespace && owner.is_some_and(|o| Some(&o.uid) == pod.metadata.uid.as_ref()) {
        return Ok(());
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let name = pod.metadata.name.as_deref().unwrap_or("");
    Err(format!("PVC {} was not created for pod {namespace}/{name} (pod is not owner)", claim_key(claim)))
}

impl Storage {
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&format!("{namespace}/{name}"))
    }

    /// Where a claim is to be provisioned, if that is decided already.
    pub fn selected_node<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> Option<&'a str> {
        annotation(claim, SELECTED_NODE).or_else(|| self.assumed_claims.get(&claim_key(claim)).map(String::as_str))
    }

    /// Whether a class waits for the first pod before it binds. Unknown classes do not; one without a mode is an error.
    pub fn waits_for_consumer(&self, class: &str) -> Result<bool, String> {
        let Some(found) = self.classes.get(class) else { return Ok(false) };
        match found.volume_binding_mode.as_deref() {
            None => Err(format!("VolumeBindingMode not set for StorageClass {class:?}")),
            Some(mode) => Ok(mode == "WaitForFirstConsumer"),
        }
    }
}
