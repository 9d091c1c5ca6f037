//! What a pod asks for and a node has, in the scheduler's units. How a pod's containers add up, `machinery::requests` says.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::requests::{self, Amounts};

/// What upstream assumes of a container that names no CPU, when it scores (`DefaultMilliCPURequest`).
pub const DEFAULT_CPU_MILLI: i64 = 100;
/// Likewise for memory (`DefaultMemoryRequest`), bytes.
pub const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource: CPU in thousandths of a core, the rest in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Hugepages, extended resources and attachable volumes, by name.
    pub scalars: BTreeMap<String, i64>,
}

pub type List = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads a resource list; `pods` is not a resource here. An amount that does not parse counts as nothing: the API
    /// server has refused it already.
    pub fn from_list(list: &List) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list {
            *out.slot(name) += amount(name, quantity);
        }
        out.scalars.remove("pods");
        out
    }

    fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu_milli,
            "memory" => &mut self.memory_bytes,
            "ephemeral-storage" => &mut self.ephemeral_bytes,
            other => self.scalars.entry(other.to_owned()).or_insert(0),
        }
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu_milli,
            "memory" => self.memory_bytes,
            "ephemeral-storage" => self.ephemeral_bytes,
            other => self.scalars.get(other).copied().unwrap_or(0),
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.cpu_milli -= other.cpu_milli;
        self.memory_bytes -= other.memory_bytes;
        self.ephemeral_bytes -= other.ephemeral_bytes;
        for (name, amount) in &other.scalars {
            *self.slot(name) -= amount;
        }
    }

    pub fn is_zero(&self) -> bool {
        self.cpu_milli == 0 && self.memory_bytes == 0 && self.ephemeral_bytes == 0 && self.scalars.values().all(|v| *v == 0)
    }
}

impl Amounts for Resources {
    type Amount = i64;

    fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.saturating_add(other.ephemeral_bytes);
        for (name, amount) in &other.scalars {
            let slot = self.slot(name);
            *slot = slot.saturating_add(*amount);
        }
    }

    fn raise(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(other.ephemeral_bytes);
        for (name, amount) in &other.scalars {
            let slot = self.slot(name);
            *slot = (*slot).max(*amount);
        }
    }

    fn set(&mut self, name: &str, amount: i64) {
        *self.slot(name) = amount;
    }
}

/// A quantity in the unit its resource is counted in, rounded up.
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    let Ok(parsed) = machinery::quantity::Quantity::parse(&quantity.0) else { return 0 };
    if name == "cpu" { parsed.milli_value() } else { parsed.value() }
}

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRequests {
    pub requests: Resources,
    /// CPU and memory as scoring sees them: containers that name none count for a default.
    pub scored_cpu_milli: i64,
    pub scored_memory_bytes: i64,
}

/// Scoring looks at containers alone, and not at what the pod as a whole names.
pub fn pod_requests(pod: &Pod) -> PodRequests {
    let requests = sum(pod, false);
    let scored = sum(pod, true);
    PodRequests { scored_cpu_milli: scored.cpu_milli, scored_memory_bytes: scored.memory_bytes, requests }
}

fn sum(pod: &Pod, scored: bool) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let of = |c: &Container| container_requests(pod, c, scored);
    let own = spec.resources.iter().filter(|_| !scored).flat_map(|r| r.requests.iter().flatten());
    let is_sidecar = |c: &Container| c.restart_policy.as_deref() == Some("Always");
    requests::Pod {
        containers: spec.containers.iter().map(of).collect(),
        init_containers: spec.init_containers.iter().flatten().map(|c| (of(c), is_sidecar(c))).collect(),
        own: own.map(|(name, quantity)| (name.clone(), amount(name, quantity))).collect(),
        overhead: spec.overhead.as_ref().map(Resources::from_list).unwrap_or_default(),
    }
    .requests()
}

fn container_requests(pod: &Pod, container: &Container, with_defaults: bool) -> Resources {
    let empty = List::new();
    let list = container.resources.as_ref().and_then(|r| r.requests.as_ref()).unwrap_or(&empty);
    let mut out = Resources::from_list(list);
    if let Some(allocated) = allocated(pod, &container.name) {
        out.raise(&allocated);
    }
    if with_defaults {
        if !list.contains_key("cpu") {
            out.cpu_milli = DEFAULT_CPU_MILLI;
        }
        if !list.contains_key("memory") {
            out.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
    }
    out
}

/// During an in-place resize (KEP-1287) the greatest of what is wanted, allocated and actually set counts.
fn allocated(pod: &Pod, container: &str) -> Option<Resources> {
    let status = pod.status.as_ref()?;
    let found = [&status.container_statuses, &status.init_container_statuses]
        .into_iter()
        .flat_map(|list| list.iter().flatten())
        .find(|c| c.name == container)?;
    let mut out = Resources::default();
    if let Some(list) = &found.allocated_resources {
        out.raise(&Resources::from_list(list));
    }
    if let Some(list) = found.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        out.raise(&Resources::from_list(list));
    }
    Some(out)
}
