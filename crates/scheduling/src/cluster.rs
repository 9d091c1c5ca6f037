//! The cluster as the scheduler knows it, updated one watch event at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::devices::Devices;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selector::{Labels, Selector};
use crate::storage::Storage;

/// Everything a decision looks at.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// By name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Labels of namespaces, for namespace selectors.
    pub namespaces: BTreeMap<String, Labels>,
    /// What Services and owners select, for the default spreading; under any unique key, as `Service/default/web`.
    pub spread: BTreeMap<String, Spread>,
    /// By `namespace/name`.
    pub budgets: BTreeMap<String, Budget>,
    /// Pods that wait for room on a node after preempting there, by their key, with that node's name.
    pub nominated: BTreeMap<String, (String, Arc<PodInfo>)>,
    /// Claims and volumes. Shared with the filters of an attempt: `Arc::make_mut` to change it.
    pub storage: Arc<Storage>,
    /// Claims for devices, and devices; shared likewise.
    pub devices: Arc<Devices>,
    /// Image names, to how many nodes have them.
    images: BTreeMap<String, usize>,
    /// How many placed pods have any affinity term, and any required anti-affinity term.
    with_affinity: usize,
    with_anti_affinity: usize,
    /// `namespace/name` of every pod on a node, to the node.
    placed: BTreeMap<String, String>,
}

/// Something whose pods should be spread by default: a Service, or an owner.
#[derive(Clone, Debug)]
pub struct Spread {
    pub namespace: String,
    pub kind: SpreadKind,
    pub selector: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpreadKind {
    /// Its selector, which must match the pod.
    Service,
    /// Kind and name of the controller.
    Owner(String, String),
}

/// A PodDisruptionBudget as preemption needs it.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: String,
    pub selector: Selector,
    pub disruptions_allowed: i32,
    /// Pods whose eviction was already granted.
    pub disrupted: Vec<String>,
}

impl Budget {
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: Selector::of(budget.spec.as_ref().and_then(|s| s.selector.as_ref())),
            disruptions_allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: status.and_then(|s| s.disrupted_pods.as_ref()).map(|d| d.keys().cloned().collect()).unwrap_or_default(),
        }
    }
}

static NO_LABELS: Labels = Labels::new();

impl Cluster {
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = match self.nodes.remove(&name) {
            Some(mut info) => {
                self.count_images(&info, false);
                info.set_node(node);
                info
            }
            None => NodeInfo::new(node),
        };
        self.count_images(&info, true);
        self.nodes.insert(name, info);
    }

    /// Pods of a node that is gone are forgotten with it, and answered: they still take its room should it come back.
    pub fn remove_node(&mut self, name: &str) -> Vec<Arc<PodInfo>> {
        self.placed.retain(|_, node| node != name);
        let Some(info) = self.nodes.remove(name) else { return Vec::new() };
        self.count_images(&info, false);
        self.with_affinity -= info.with_affinity;
        self.with_anti_affinity -= info.with_anti_affinity;
        info.pods
    }

    /// Puts a pod on the node it is bound to (or assumed to be on), or takes it off when it has ended.
    /// Pods on unknown nodes are ignored.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
        let info = PodInfo::new(pod.clone());
        let Some(node) = info.node_name().map(str::to_owned) else { return };
        if phase == "Succeeded" || phase == "Failed" {
            self.remove_pod(&info.key());
        } else {
            self.place(&node, Arc::new(info));
        }
    }

    /// Puts a pod on a node whatever its spec says: a decision just made, not yet seen back.
    pub fn place(&mut self, node: &str, pod: Arc<PodInfo>) {
        let key = pod.key();
        self.remove_pod(&key);
        if let Some(info) = self.nodes.get_mut(node) {
            self.with_affinity += usize::from(pod.has_affinity());
            self.with_anti_affinity += usize::from(!pod.anti_affinity.is_empty());
            info.add(pod);
            self.placed.insert(key, node.to_owned());
        }
    }

    pub fn remove_pod(&mut self, key: &str) {
        if let Some(node) = self.placed.remove(key)
            && let Some(info) = self.nodes.get_mut(&node)
            && let Some(pod) = info.remove(key)
        {
            self.with_affinity -= usize::from(pod.has_affinity());
            self.with_anti_affinity -= usize::from(!pod.anti_affinity.is_empty());
        }
    }

    fn count_images(&mut self, node: &NodeInfo, here: bool) {
        for name in node.images.keys() {
            if here {
                *self.images.entry(name.clone()).or_insert(0) += 1;
            } else if let Some(count) = self.images.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    /// How many nodes have an image.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Whether any placed pod has an affinity term of any kind.
    pub fn any_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// Whether any placed pod must not be near some others.
    pub fn any_anti_affinity(&self) -> bool {
        self.with_anti_affinity > 0
    }

    pub fn node_of(&self, key: &str) -> Option<&str> {
        self.placed.get(key).map(String::as_str)
    }

    pub fn namespace_labels(&self, namespace: &str) -> &Labels {
        self.namespaces.get(namespace).unwrap_or(&NO_LABELS)
    }
}
