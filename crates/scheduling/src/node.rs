//! A node and the pods on it, with sums kept as pods come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use machinery::requests::Amounts as _;

use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;
use crate::selector::Labels;

/// A node as the plugins see it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<PodInfo>>,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Of all pods here.
    pub requested: Resources,
    pub scored_cpu_milli: i64,
    pub scored_memory_bytes: i64,
    /// Image name (with tag) to size in bytes.
    pub images: BTreeMap<String, i64>,
    /// Ports of the node that pods here hold. A set, as upstream's: two pods that share one are not told apart.
    pub ports: BTreeSet<HostPort>,
    labels: Labels,
    /// How many pods here have any pod affinity term, and any required anti-affinity term.
    pub with_affinity: usize,
    pub with_anti_affinity: usize,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            pods: Vec::new(),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            scored_cpu_milli: 0,
            scored_memory_bytes: 0,
            images: BTreeMap::new(),
            ports: BTreeSet::new(),
            labels: Labels::new(),
            with_affinity: 0,
            with_anti_affinity: 0,
            node: node.clone(),
        };
        info.set_node(node);
        info
    }

    /// Takes over a changed node; its pods stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_list).unwrap_or_default();
        self.allowed_pods = allocatable.and_then(|a| a.get("pods")).map_or(0, |q| crate::resources::amount("pods", q));
        self.images = status
            .and_then(|s| s.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|i| i.names.iter().flatten().map(|n| (n.clone(), i.size_bytes.unwrap_or(0))))
            .collect();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or("")
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[])
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.requests);
        self.scored_cpu_milli += pod.requests.scored_cpu_milli;
        self.scored_memory_bytes += pod.requests.scored_memory_bytes;
        self.with_affinity += usize::from(pod.has_affinity());
        self.with_anti_affinity += usize::from(!pod.anti_affinity.is_empty());
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes a pod away by its key (`namespace/name`); says whether it was here.
    pub fn remove(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let (namespace, name) = key.split_once('/')?;
        let at = self.pods.iter().position(|p| p.name() == name && p.namespace() == namespace)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests.requests);
        self.scored_cpu_milli -= pod.requests.scored_cpu_milli;
        self.scored_memory_bytes -= pod.requests.scored_memory_bytes;
        self.with_affinity -= usize::from(pod.has_affinity());
        self.with_anti_affinity -= usize::from(!pod.anti_affinity.is_empty());
        for port in &pod.ports {
            self.ports.remove(port);
        }
        Some(pod)
    }
}
