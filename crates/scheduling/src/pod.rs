//! A pod as the plugins see it: everything parsed once, when the pod enters the cluster or the queue.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, Container, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::resources::{PodRequests, pod_requests};
use crate::selector::{Labels, NodeTerm, Selector};

/// A pod with its requests, ports and affinity terms at hand.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: PodRequests,
    pub ports: Vec<HostPort>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    pub preferred_affinity: Vec<Term>,
    pub preferred_anti_affinity: Vec<Term>,
    /// Required node affinity. A term that does not parse matches no node.
    pub node_terms: Option<Vec<NodeTerm>>,
    /// A deletion has begun.
    pub terminating: bool,
    labels: Labels,
}

/// A port of the node that a pod wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two pods cannot both have them: same protocol and port, and the addresses overlap.
    pub fn conflicts(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (self.ip == ANY || other.ip == ANY || self.ip == other.ip)
    }
}

/// One pod (anti-)affinity term.
#[derive(Clone, Debug)]
pub struct Term {
    namespaces: Vec<String>,
    namespace_selector: Selector,
    selector: Selector,
    pub topology_key: String,
    /// 0 for required terms.
    pub weight: i64,
}

impl Term {
    fn of(pod_namespace: &str, term: &PodAffinityTerm, weight: i32) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(pod_namespace.to_owned());
        }
        Self {
            namespaces,
            namespace_selector: Selector::of(term.namespace_selector.as_ref()),
            selector: Selector::of(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
            weight: i64::from(weight),
        }
    }

    /// Whether the term speaks of a pod, given the labels of that pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &Labels) -> bool {
        (self.namespaces.iter().any(|n| n == pod.namespace()) || self.namespace_selector.matches(namespace_labels))
            && self.selector.matches(pod.labels())
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|s| s.affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(|t| Term::of(&namespace, t, 0)).collect();
        let pod_affinity = affinity.and_then(|a| a.pod_affinity.as_ref());
        let pod_anti = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let preferred = |terms: Option<&Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| Term::of(&namespace, &t.pod_affinity_term, t.weight)).collect()
        };
        Self {
            requests: pod_requests(&pod),
            ports: host_ports(&pod),
            affinity: required(pod_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: required(pod_anti.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred_affinity: preferred(pod_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())),
            preferred_anti_affinity: preferred(pod_anti.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())),
            node_terms: node_terms(affinity),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            pod,
        }
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or("")
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("")
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or("")
    }

    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }

    pub fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
    }

    pub fn start_time(&self) -> Option<&Time> {
        self.pod.status.as_ref()?.start_time.as_ref()
    }

    pub fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty()
            && self.anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty())
    }

    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
    }
}

fn node_terms(affinity: Option<&Affinity>) -> Option<Vec<NodeTerm>> {
    affinity
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .map(|s| s.node_selector_terms.iter().enumerate().map(|(i, t)| NodeTerm::of(t, i).unwrap_or_default()).collect())
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some(HostPort { ip, protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port })
        })
        .collect()
}
