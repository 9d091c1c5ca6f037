//! Finds devices for claims on one node: depth first in the order of requests, pools and devices, as upstream's structured
//! allocator, so that the first solution is the same.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceAttribute, DeviceClass, DeviceConstraint,
    DeviceRequestAllocationResult, DeviceSelector, DeviceToleration, ResourceClaim, ResourceSlice,
};

use super::selectors::{Environment, Selectors};
use super::{DeviceId, Devices};
use crate::node::NodeInfo;
use crate::plugins::taint_toleration::covers;
use crate::selector::NodeTerm;

/// Devices that one claim can get (`AllocationResultsMaxSize`).
const RESULTS_MAX: usize = 32;
/// Tries per node. Upstream gives up after ten seconds instead.
const TRIES_MAX: u32 = 100_000;

/// Why no solution was found, other than that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// On this node.
    Node(String),
    /// Of the request itself: the pod cannot be judged.
    Error(String),
}

/// One way to satisfy a request.
struct Way {
    /// `request`, or `request/subrequest`.
    name: String,
    class: Arc<DeviceClass>,
    /// `None`: all devices that match.
    count: Option<usize>,
    tolerations: Vec<DeviceToleration>,
    admin: bool,
    class_selectors: Selectors,
    selectors: Selectors,
}

/// A request: the first of its ways that works out is taken.
struct Wanted {
    claim: usize,
    ways: Vec<Way>,
}

/// The claims to allocate, compiled once per attempt.
pub struct Allocator {
    claims: Vec<Arc<ResourceClaim>>,
    wanted: Vec<Wanted>,
    environment: Environment,
    in_use: BTreeSet<DeviceId>,
}

struct Parts<'a> {
    name: String,
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    admin: bool,
}

/// A device within reach of a node.
struct Reachable<'a> {
    id: DeviceId,
    slice: &'a ResourceSlice,
    device: &'a Device,
}

impl Allocator {
    /// Errors where a request cannot be satisfied anywhere: its class is missing or its selectors do not compile.
    pub fn new(devices: &Devices, claims: Vec<Arc<ResourceClaim>>) -> Result<Self, Problem> {
        let mut wanted = Vec::new();
        for (i, claim) in claims.iter().enumerate() {
            for request in claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
                let mut ways = Vec::new();
                if let Some(r) = &request.exactly {
                    let parts = Parts {
                        name: request.name.clone(),
                        class: &r.device_class_name,
                        mode: r.allocation_mode.as_deref(),
                        count: r.count,
                        selectors: r.selectors.as_deref().unwrap_or(&[]),
                        tolerations: r.tolerations.as_deref().unwrap_or(&[]),
                        admin: r.admin_access == Some(true),
                    };
                    ways.push(way(devices, &request.name, claim, parts)?);
                }
                for r in request.first_available.iter().flatten() {
                    let parts = Parts {
                        name: format!("{}/{}", request.name, r.name),
                        class: &r.device_class_name,
                        mode: r.allocation_mode.as_deref(),
                        count: r.count,
                        selectors: r.selectors.as_deref().unwrap_or(&[]),
                        tolerations: r.tolerations.as_deref().unwrap_or(&[]),
                        admin: false,
                    };
                    ways.push(way(devices, &request.name, claim, parts)?);
                }
                if ways.is_empty() {
                    return Err(Problem::Error(format!("request {}: unsupported request type", request.name)));
                }
                wanted.push(Wanted { claim: i, ways });
            }
        }
        Ok(Self { claims, wanted, environment: Environment::new(), in_use: devices.in_use() })
    }

    /// An allocation for each claim in order, or `None` if the node's devices do not suffice.
    pub fn allocate(&self, devices: &Devices, node: &NodeInfo) -> Result<Option<Vec<AllocationResult>>, Problem> {
        let (reachable, incomplete) = reachable(devices, node);
        let search =
            Search { allocator: self, reachable: &reachable, incomplete: &incomplete, matched: RefCell::default(), tries: Cell::new(0) };
        let mut picks = Vec::new();
        if !search.place(0, &mut picks)? {
            return Ok(None);
        }
        Ok(Some((0..self.claims.len()).map(|claim| self.result(claim, &picks, &reachable, node)).collect()))
    }

    /// For each request with alternatives: its place among 8, more for an earlier one (`computeScore`).
    pub fn preference(&self, results: &[AllocationResult]) -> i64 {
        let mut score = 0;
        for wanted in self.wanted.iter().filter(|w| w.ways.iter().any(|way| way.name.contains('/'))) {
            let got: BTreeSet<&str> = results
                .get(wanted.claim)
                .iter()
                .filter_map(|a| a.devices.as_ref()?.results.as_ref())
                .flatten()
                .map(|r| r.request.as_str())
                .collect();
            if let Some(at) = wanted.ways.iter().position(|way| got.contains(way.name.as_str())) {
                score += 8 - i64::try_from(at).unwrap_or(8);
            }
        }
        score
    }

    fn result(&self, claim: usize, picks: &[Pick], reachable: &[Reachable<'_>], node: &NodeInfo) -> AllocationResult {
        let mut results = Vec::new();
        let mut config = Vec::new();
        let mut local = Vec::new();
        let mut configured = BTreeSet::new();
        for pick in picks.iter().filter(|p| self.wanted[p.wanted].claim == claim) {
            let way = &self.wanted[pick.wanted].ways[pick.way];
            let found = &reachable[pick.device];
            let (driver, pool, device) = found.id.clone();
            results.push(DeviceRequestAllocationResult {
                request: way.name.clone(),
                driver,
                pool,
                device,
                admin_access: way.admin.then_some(true),
                tolerations: (!way.tolerations.is_empty()).then(|| way.tolerations.clone()),
                ..DeviceRequestAllocationResult::default()
            });
            local.push(found);
            if configured.insert(way.name.as_str()) {
                config.extend(way.class.spec.config.iter().flatten().map(|c| DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![way.name.clone()]),
                    opaque: c.opaque.clone(),
                }));
            }
        }
        let own = self.claims[claim].spec.devices.iter().flat_map(|d| d.config.iter().flatten());
        for c in own {
            let requests = c.requests.as_deref().unwrap_or(&[]);
            if requests.is_empty() || configured.iter().any(|name| speaks_of(requests, name)) {
                config.push(DeviceAllocationConfiguration {
                    source: "FromClaim".to_owned(),
                    requests: c.requests.clone(),
                    opaque: c.opaque.clone(),
                });
            }
        }
        AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult { config: (!config.is_empty()).then_some(config), results: Some(results) }),
            node_selector: node_selector(&local, node),
        }
    }
}

fn way(devices: &Devices, request: &str, claim: &ResourceClaim, parts: Parts<'_>) -> Result<Way, Problem> {
    if parts.class.is_empty() {
        return Err(Problem::Error(format!("request {request}: unsupported request type")));
    }
    let Some(class) = devices.classes.get(parts.class) else {
        return Err(Problem::Node(format!("request {request}: device class {} does not exist", parts.class)));
    };
    let of_class = format!("class {}", parts.class);
    let of_claim = format!("claim {}", super::claim_key(claim));
    let count = match parts.mode {
        Some("All") => None,
        Some("ExactCount" | "") | None => Some(usize::try_from(parts.count.unwrap_or(1)).unwrap_or(1)),
        Some(other) => return Err(Problem::Error(format!("{of_claim}, request {request}: unsupported count mode {other}"))),
    };
    Ok(Way {
        class: class.clone(),
        count,
        tolerations: parts.tolerations.to_vec(),
        admin: parts.admin,
        class_selectors: Selectors::compile(class.spec.selectors.as_deref().unwrap_or(&[]), &of_class).map_err(Problem::Error)?,
        selectors: Selectors::compile(parts.selectors, &of_claim).map_err(Problem::Error)?,
        name: parts.name,
    })
}

/// Devices of the newest generation of each pool that the node can use, and pools whose slices are not all there.
fn reachable<'a>(devices: &'a Devices, node: &NodeInfo) -> (Vec<Reachable<'a>>, Vec<String>) {
    let mut pools: BTreeMap<(&str, &str), (i64, Vec<&ResourceSlice>)> = BTreeMap::new();
    for slice in devices.slices.values() {
        let spec = &slice.spec;
        let pool = pools.entry((&spec.driver, &spec.pool.name)).or_insert((spec.pool.generation, Vec::new()));
        if spec.pool.generation > pool.0 {
            *pool = (spec.pool.generation, Vec::new());
        }
        if spec.pool.generation == pool.0 {
            pool.1.push(slice);
        }
    }
    let mut out = Vec::new();
    let mut incomplete = Vec::new();
    for ((driver, pool), (_, slices)) in pools {
        let expected = slices.first().map_or(0, |s| s.spec.pool.resource_slice_count);
        let before = out.len();
        for slice in &slices {
            for device in slice.spec.devices.iter().flatten().filter(|d| within_reach(slice, d, node)) {
                out.push(Reachable { id: (driver.to_owned(), pool.to_owned(), device.name.clone()), slice, device });
            }
        }
        if out.len() > before && usize::try_from(expected).unwrap_or(0) > slices.len() {
            incomplete.push(pool.to_owned());
        }
        // A pool that names a device twice is void.
        let names: BTreeSet<&str> = out[before..].iter().map(|r| r.device.name.as_str()).collect();
        if names.len() < out.len() - before {
            out.truncate(before);
        }
    }
    (out, incomplete)
}

fn within_reach(slice: &ResourceSlice, device: &Device, node: &NodeInfo) -> bool {
    let spec = &slice.spec;
    let (name, all, selector) = if spec.per_device_node_selection == Some(true) {
        (&device.node_name, device.all_nodes, &device.node_selector)
    } else {
        (&spec.node_name, spec.all_nodes, &spec.node_selector)
    };
    match (name, all, selector) {
        (Some(name), ..) if !name.is_empty() => name == node.name(),
        (_, Some(true), _) => true,
        (.., Some(selector)) => selects(selector, node),
        _ => false,
    }
}

/// Whether a node selector chooses a node.
pub fn selects(selector: &NodeSelector, node: &NodeInfo) -> bool {
    let mut terms = selector.node_selector_terms.iter().enumerate();
    terms.any(|(i, t)| NodeTerm::of(t, i).is_ok_and(|t| t.matches(node.name(), node.labels())))
}

/// Where an allocation can be used: on this node if any device is the node's own, else where all selectors of slices agree.
fn node_selector(devices: &[&Reachable<'_>], node: &NodeInfo) -> Option<NodeSelector> {
    let mut merged = NodeSelectorTerm::default();
    for found in devices {
        let spec = &found.slice.spec;
        let per_device = spec.per_device_node_selection == Some(true);
        let name = if per_device { &found.device.node_name } else { &spec.node_name };
        if name.as_ref().is_some_and(|n| !n.is_empty()) {
            let field = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.name().to_owned()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        let selector = if per_device { &found.device.node_selector } else { &spec.node_selector };
        for term in selector.iter().flat_map(|s| &s.node_selector_terms) {
            merge(&mut merged.match_expressions, term.match_expressions.as_deref());
            merge(&mut merged.match_fields, term.match_fields.as_deref());
        }
    }
    let empty = merged.match_expressions.is_none() && merged.match_fields.is_none();
    (!empty).then(|| NodeSelector { node_selector_terms: vec![merged] })
}

fn merge(into: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&[NodeSelectorRequirement]>) {
    for requirement in more.unwrap_or(&[]) {
        let list = into.get_or_insert_default();
        if !list.contains(requirement) {
            list.push(requirement.clone());
        }
    }
}

/// Whether a list of request names covers one, by its full name or its request's.
fn speaks_of(requests: &[String], name: &str) -> bool {
    let main = name.split('/').next().unwrap_or(name);
    requests.iter().any(|r| r == name || r == main)
}

#[derive(Clone, Copy)]
struct Pick {
    wanted: usize,
    way: usize,
    device: usize,
}

struct Search<'a> {
    allocator: &'a Allocator,
    reachable: &'a [Reachable<'a>],
    incomplete: &'a [String],
    /// Whether a device suits a way (request, way, device): asked again and again on the way back.
    matched: RefCell<BTreeMap<(usize, usize, usize), bool>>,
    tries: Cell<u32>,
}

impl Search<'_> {
    fn place(&self, wanted: usize, picks: &mut Vec<Pick>) -> Result<bool, Problem> {
        let Some(request) = self.allocator.wanted.get(wanted) else { return Ok(true) };
        for way in 0..request.ways.len() {
            let found = match request.ways[way].count {
                Some(count) => self.fill(wanted, way, count, 0, picks)?,
                None => self.take_all(wanted, way, picks)?,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes `left` more devices, from the one at `start` on.
    fn fill(&self, wanted: usize, way: usize, left: usize, start: usize, picks: &mut Vec<Pick>) -> Result<bool, Problem> {
        if left == 0 {
            return self.place(wanted + 1, picks);
        }
        for device in start..self.reachable.len() {
            self.tries.set(self.tries.get() + 1);
            if self.tries.get() > TRIES_MAX {
                return Err(Problem::Node("timed out trying to allocate devices".to_owned()));
            }
            if !self.suits(wanted, way, device)? || !self.free(wanted, way, device, picks) {
                continue;
            }
            picks.push(Pick { wanted, way, device });
            if self.holds(wanted, picks) && self.fill(wanted, way, left - 1, device + 1, picks)? {
                return Ok(true);
            }
            picks.pop();
        }
        Ok(false)
    }

    fn take_all(&self, wanted: usize, way: usize, picks: &mut Vec<Pick>) -> Result<bool, Problem> {
        let request = &self.allocator.wanted[wanted];
        if let Some(pool) = self.incomplete.first() {
            let claim = super::claim_key(&self.allocator.claims[request.claim]);
            let name = &request.ways[way].name;
            let why = format!("claim {claim}, request {name}: asks for all devices, but resource pool {pool} is currently being updated");
            return Err(Problem::Node(why));
        }
        let before = picks.len();
        for device in 0..self.reachable.len() {
            if !self.suits(wanted, way, device)? {
                continue;
            }
            let free = self.free(wanted, way, device, picks);
            picks.push(Pick { wanted, way, device });
            if !free || !self.holds(wanted, picks) {
                picks.truncate(before);
                return Ok(false);
            }
        }
        if picks.len() > before && self.place(wanted + 1, picks)? {
            return Ok(true);
        }
        picks.truncate(before);
        Ok(false)
    }

    /// Whether all selectors choose the device.
    fn suits(&self, wanted: usize, way: usize, device: usize) -> Result<bool, Problem> {
        if let Some(known) = self.matched.borrow().get(&(wanted, way, device)) {
            return Ok(*known);
        }
        let w = &self.allocator.wanted[wanted].ways[way];
        let found = &self.reachable[device];
        let environment = &self.allocator.environment;
        let of_class = || format!("class {}", w.class.metadata.name.as_deref().unwrap_or(""));
        let of_claim = || format!("claim {}", super::claim_key(&self.allocator.claims[self.allocator.wanted[wanted].claim]));
        let suits = w.class_selectors.matches(environment, &found.id.0, found.device, &of_class()).map_err(Problem::Error)?
            && w.selectors.matches(environment, &found.id.0, found.device, &of_claim()).map_err(Problem::Error)?;
        self.matched.borrow_mut().insert((wanted, way, device), suits);
        Ok(suits)
    }

    /// Not tainted, held by a claim or picked before; whoever administers a device may look in while others have it.
    fn free(&self, wanted: usize, way: usize, device: usize, picks: &[Pick]) -> bool {
        let way_of = |wanted: usize, way: usize| &self.allocator.wanted[wanted].ways[way];
        let (mine, found) = (way_of(wanted, way), &self.reachable[device]);
        let picked = || picks.iter().any(|p| p.device == device && !way_of(p.wanted, p.way).admin);
        tolerated(found.device, &mine.tolerations) && (mine.admin || !self.allocator.in_use.contains(&found.id) && !picked())
    }

    /// Whether the constraints of a claim, and its size, hold for what is picked so far.
    fn holds(&self, wanted: usize, picks: &[Pick]) -> bool {
        let claim = self.allocator.wanted[wanted].claim;
        let mine: Vec<&Pick> = picks.iter().filter(|p| self.allocator.wanted[p.wanted].claim == claim).collect();
        if mine.len() > RESULTS_MAX {
            return false;
        }
        let constraints = self.allocator.claims[claim].spec.devices.iter().flat_map(|d| d.constraints.iter().flatten());
        constraints.into_iter().all(|c| self.constraint_holds(c, &mine))
    }

    fn constraint_holds(&self, constraint: &DeviceConstraint, picks: &[&Pick]) -> bool {
        let requests = constraint.requests.as_deref().unwrap_or(&[]);
        let covered = |p: &&&Pick| requests.is_empty() || speaks_of(requests, &self.allocator.wanted[p.wanted].ways[p.way].name);
        let values = |name: &str| -> Vec<Option<&DeviceAttribute>> {
            picks.iter().filter(covered).map(|p| attribute(&self.reachable[p.device], name)).collect()
        };
        if let Some(name) = &constraint.match_attribute {
            let values = values(name);
            return values.iter().all(|v| v.is_some() && *v == values[0]);
        }
        if let Some(name) = &constraint.distinct_attribute {
            let values = values(name);
            return values.iter().enumerate().all(|(i, v)| v.is_some() && !values[..i].contains(v));
        }
        // A constraint of a kind not known here cannot be said to hold.
        false
    }
}

/// Looks an attribute up by its full name; names without a domain are of the driver's.
fn attribute<'a>(found: &Reachable<'a>, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = found.device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        if domain == found.id.0 { attributes.get(id) } else { None }
    })
}

/// Every taint that keeps pods off is tolerated.
fn tolerated(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    device.taints.iter().flatten().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute").all(|taint| {
        let taint = Taint { key: taint.key.clone(), effect: taint.effect.clone(), value: taint.value.clone(), time_added: None };
        tolerations.iter().any(|t| {
            let toleration = Toleration {
                effect: t.effect.clone(),
                key: t.key.clone(),
                operator: t.operator.clone(),
                value: t.value.clone(),
                ..Toleration::default()
            };
            covers(&toleration, &taint)
        })
    })
}
