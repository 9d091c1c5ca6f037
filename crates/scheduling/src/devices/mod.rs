//! Resource claims, device classes and slices of devices (dynamic resource allocation, structured parameters), as the
//! DynamicResources plugin looks at them. `allocator` finds devices for claims, `selectors` evaluates CEL.

pub mod allocator;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};

/// Names one device: driver, pool, device.
pub type DeviceId = (String, String, String);

/// A class may be asked for as an extended resource under this prefix, whatever its own `extendedResourceName`.
const IMPLICIT_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// Pods that may share a claim (`ResourceClaimReservedForMaxSize`).
const RESERVED_MAX: usize = 256;

/// Everything about devices that a decision looks at.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// By `namespace/name`.
    pub claims: BTreeMap<String, Arc<ResourceClaim>>,
    pub classes: BTreeMap<String, Arc<DeviceClass>>,
    pub slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// Decided and not yet seen back, by claim (`namespace/name`, or any unique key for a claim that is yet to be created).
    pub assumed: BTreeMap<String, AllocationResult>,
}

/// The claim behind one entry of `spec.resourceClaims`.
enum Named {
    Claim {
        name: String,
        from_template: bool,
    },
    /// The template produced none: nothing to wait for.
    NotNeeded,
    NotYet,
}

fn named(pod: &Pod, entry: &k8s_openapi::api::core::v1::PodResourceClaim) -> Named {
    if let Some(name) = &entry.resource_claim_name {
        return Named::Claim { name: name.clone(), from_template: false };
    }
    let statuses = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    match statuses.into_iter().find(|s| s.name == entry.name) {
        None => Named::NotYet,
        Some(status) => match &status.resource_claim_name {
            Some(name) => Named::Claim { name: name.clone(), from_template: true },
            None => Named::NotNeeded,
        },
    }
}

impl Devices {
    /// The claims a pod names, in its order; an error while one of them is missing or going away.
    pub fn claims_of(&self, pod: &Pod) -> Result<Vec<Arc<ResourceClaim>>, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let pod_name = pod.metadata.name.as_deref().unwrap_or("");
        let mut out = Vec::new();
        for entry in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
            let (name, from_template) = match named(pod, entry) {
                Named::NotNeeded => continue,
                Named::NotYet => return Err(format!("pod \"{namespace}/{pod_name}\": ResourceClaim not created yet")),
                Named::Claim { name, from_template } => (name, from_template),
            };
            let Some(claim) = self.claims.get(&format!("{namespace}/{name}")) else {
                return Err(format!("resourceclaim.resource.k8s.io {name:?} not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            let owner = claim.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
            if from_template && owner.is_none_or(|o| Some(&o.uid) != pod.metadata.uid.as_ref()) {
                return Err(format!("ResourceClaim {namespace}/{name} was not created for pod {namespace}/{pod_name} (pod is not owner)"));
            }
            out.push(claim.clone());
        }
        Ok(out)
    }

    /// A claim's allocation, also one that is only decided yet.
    pub fn allocation<'a>(&'a self, claim: &'a ResourceClaim) -> Option<&'a AllocationResult> {
        let written = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
        written.or_else(|| self.assumed.get(&claim_key(claim)))
    }

    /// Devices that claims hold.
    pub fn in_use(&self) -> BTreeSet<DeviceId> {
        let written = self.claims.values().filter_map(|c| c.status.as_ref()?.allocation.as_ref());
        let results = written.chain(self.assumed.values()).filter_map(|a| a.devices.as_ref()?.results.as_ref()).flatten();
        results.filter(|r| r.admin_access != Some(true)).map(|r| (r.driver.clone(), r.pool.clone(), r.device.clone())).collect()
    }

    /// The class that stands behind an extended resource; the newest if several name it.
    pub fn class_of_resource(&self, resource: &str) -> Option<&Arc<DeviceClass>> {
        if let Some(name) = resource.strip_prefix(IMPLICIT_PREFIX) {
            return self.classes.get(name);
        }
        let naming = self.classes.values().filter(|c| c.spec.extended_resource_name.as_deref() == Some(resource));
        naming.max_by_key(|c| (c.metadata.creation_timestamp.as_ref().map(|t| t.0), std::cmp::Reverse(c.metadata.name.clone())))
    }
}

pub fn claim_key(claim: &ResourceClaim) -> String {
    format!("{}/{}", claim.metadata.namespace.as_deref().unwrap_or(""), claim.metadata.name.as_deref().unwrap_or(""))
}

pub fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    reserved(claim).iter().any(|r| Some(&r.uid) == pod.metadata.uid.as_ref())
}

pub fn can_be_reserved(claim: &ResourceClaim) -> bool {
    reserved(claim).len() < RESERVED_MAX
}

pub fn reserved(claim: &ResourceClaim) -> &[k8s_openapi::api::resource::v1::ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or(&[])
}
