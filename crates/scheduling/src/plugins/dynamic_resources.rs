//! DynamicResources: claims for devices, and extended resources that a device class stands behind.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec};

use crate::cluster::Cluster;
use crate::devices::allocator::{Allocator, Problem, selects};
use crate::devices::{Devices, can_be_reserved, claim_key, is_reserved_for, reserved};
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection, Score, Scorer, normalize_by_max};
use crate::pod::PodInfo;
use crate::resources::amount;

pub const NAME: &str = "DynamicResources";
const ELSEWHERE: &str = "resourceclaim not available on the node";

/// What has to be written before a pod can be bound to a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Claims (`namespace/name`) that are to be reserved for the pod, with their new allocation if they had none.
    pub claims: Vec<(String, Option<AllocationResult>)>,
    /// A claim to be created for extended resources, and its allocation.
    pub extended: Option<(ResourceClaimSpec, AllocationResult)>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.extended.is_none()
    }
}

#[derive(Clone)]
struct Claims {
    devices: Arc<Devices>,
    /// Allocated before: where they are is where the pod goes.
    allocated: Vec<Arc<ResourceClaim>>,
    /// `None` where the pod has no claims that are to be allocated.
    allocator: Option<Rc<Allocator>>,
    to_allocate: Vec<Arc<ResourceClaim>>,
    /// Asks for extended resources: one more claim, different from node to node.
    extended: bool,
}

/// Whether a pod has anything to do with devices.
pub fn concerns(cluster: &Cluster, pod: &PodInfo) -> bool {
    pod.pod.spec.as_ref().is_some_and(|s| s.resource_claims.as_ref().is_some_and(|c| !c.is_empty())) || asks_extended(cluster, pod)
}

fn asks_extended(cluster: &Cluster, pod: &PodInfo) -> bool {
    !cluster.devices.classes.is_empty() && pod.requests.requests.scalars.keys().any(|r| cluster.devices.class_of_resource(r).is_some())
}

/// A node does not offer an extended resource itself, and a device class does: DynamicResources judges it, not the amounts.
pub fn delegated(devices: &Devices, resource: &str, node: &NodeInfo) -> bool {
    !devices.classes.is_empty() && node.allocatable.get(resource) == 0 && devices.class_of_resource(resource).is_some()
}

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    match prepare(cluster, pod) {
        Ok(None) => Prepared::Skip,
        Ok(Some(claims)) => Prepared::Check(Box::new(claims)),
        Err(Problem::Node(why)) => Prepared::Reject(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, why)),
        Err(Problem::Error(why)) => Prepared::Error(why),
    }
}

fn prepare(cluster: &Cluster, pod: &PodInfo) -> Result<Option<Claims>, Problem> {
    if !concerns(cluster, pod) {
        return Ok(None);
    }
    let devices = cluster.devices.clone();
    let (mut allocated, mut to_allocate) = (Vec::new(), Vec::new());
    for claim in devices.claims_of(&pod.pod).map_err(Problem::Node)? {
        if devices.allocation(&claim).is_none() {
            to_allocate.push(claim);
        } else if can_be_reserved(&claim) || is_reserved_for(&claim, &pod.pod) {
            allocated.push(claim);
        } else {
            return Err(Problem::Node("resourceclaim in use".to_owned()));
        }
    }
    let allocator = match to_allocate.as_slice() {
        [] => None,
        claims => Some(Rc::new(Allocator::new(&devices, claims.to_vec())?)),
    };
    let extended = asks_extended(cluster, pod);
    Ok(Some(Claims { devices, allocated, allocator, to_allocate, extended }))
}

/// What running `pod` on `node` takes; `None` if it cannot be had (any more).
pub fn plan(cluster: &Cluster, pod: &PodInfo, node: &NodeInfo) -> Option<Plan> {
    let Some(claims) = prepare(cluster, pod).ok()? else { return Some(Plan::default()) };
    let (_, results) = claims.find(pod, node).ok()?;
    let mut results = results.into_iter();
    let mut plan = Plan::default();
    plan.claims.extend(claims.allocated.iter().map(|c| (claim_key(c), None)));
    plan.claims.extend(claims.to_allocate.iter().map(|c| claim_key(c)).zip(results.by_ref().map(Some)));
    plan.extended = claims.extended_claim(pod, node).and_then(|c| Some((c.spec.clone(), results.next()?)));
    Some(plan)
}

/// After a failed attempt: an allocated but unused claim that keeps the pod off nodes it could go to. Freeing it may help.
pub fn to_free(cluster: &Cluster, pod: &PodInfo, rejected: &BTreeMap<String, Rejection>) -> Option<String> {
    let mut nodes = rejected.iter().filter(|(_, r)| r.plugin == NAME && r.reasons.iter().any(|t| t == ELSEWHERE));
    let claims = prepare(cluster, pod).ok()??;
    nodes.find_map(|(name, _)| {
        let node = cluster.nodes.get(name)?;
        let idle = |c: &&Arc<ResourceClaim>| match reserved(c) {
            [] => true,
            [one] => one.uid == pod.uid(),
            _ => false,
        };
        claims.allocated.iter().filter(idle).find(|c| !claims.is_usable(c, node)).map(|c| claim_key(c))
    })
}

impl Claims {
    fn is_usable(&self, claim: &ResourceClaim, node: &NodeInfo) -> bool {
        let selector = self.devices.allocation(claim).and_then(|a| a.node_selector.as_ref());
        selector.is_none_or(|s| selects(s, node))
    }

    /// The claim upstream makes up for extended resources that the node itself does not offer.
    fn extended_claim(&self, pod: &PodInfo, node: &NodeInfo) -> Option<Arc<ResourceClaim>> {
        if !self.extended {
            return None;
        }
        let mut requests = Vec::new();
        for (i, container) in pod.containers().enumerate() {
            let wanted = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
            for (j, (resource, quantity)) in wanted.enumerate() {
                let count = amount(resource, quantity);
                if count <= 0 || !delegated(&self.devices, resource, node) {
                    continue;
                }
                let Some(class) = self.devices.class_of_resource(resource) else { continue };
                requests.push(DeviceRequest {
                    name: format!("container-{i}-request-{j}"),
                    exactly: Some(ExactDeviceRequest {
                        device_class_name: class.metadata.name.clone().unwrap_or_default(),
                        allocation_mode: Some("ExactCount".to_owned()),
                        count: Some(count),
                        ..ExactDeviceRequest::default()
                    }),
                    first_available: None,
                });
            }
        }
        if requests.is_empty() {
            return None;
        }
        let mut claim = ResourceClaim::default();
        claim.metadata.namespace = Some(pod.namespace().to_owned());
        claim.metadata.name = Some("<extended-resources>".to_owned());
        claim.spec.devices = Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() });
        Some(Arc::new(claim))
    }

    /// The allocations on a node, and how well they match what the claims prefer.
    fn find(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(i64, Vec<AllocationResult>), Rejection> {
        let unresolvable = |why: &str| Rejection::of(NAME, Code::UnschedulableAndUnresolvable, why);
        let rejection = |problem| match problem {
            Problem::Node(why) => unresolvable(&why),
            Problem::Error(why) => Rejection::of(NAME, Code::Error, why),
        };
        let allocator = match self.extended_claim(pod, node) {
            None => self.allocator.clone(),
            Some(extended) => {
                let mut all = self.to_allocate.clone();
                all.push(extended);
                Some(Rc::new(Allocator::new(&self.devices, all).map_err(rejection)?))
            }
        };
        let mut found = (0, Vec::new());
        if let Some(allocator) = allocator {
            let results = allocator.allocate(&self.devices, node).map_err(rejection)?;
            let results = results.ok_or_else(|| unresolvable("cannot allocate all claims"))?;
            found = (allocator.preference(&results), results);
        }
        if self.allocated.iter().all(|c| self.is_usable(c, node)) { Ok(found) } else { Err(unresolvable(ELSEWHERE)) }
    }
}

impl Filter for Claims {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        self.find(pod, node).map(|_| ())
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

pub fn score(cluster: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    match prepare(cluster, pod) {
        Ok(Some(claims)) if claims.allocator.is_some() => Ok(Some(Box::new(claims))),
        _ => Ok(None),
    }
}

impl Score for Claims {
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        self.find(pod, node).map_or(0, |(preference, _)| preference)
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}
