//! The table of plugins, in the order of upstream's default profile. A plugin is a row here and a file beside it.

pub mod balanced;
pub mod dynamic_resources;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_basics;
pub mod node_ports;
pub mod resources_fit;
pub mod taint_toleration;
pub mod topology_spread;
pub mod volume_binding;
pub mod volume_limits;
pub mod volume_restrictions;
pub mod volume_zone;

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The greatest normalised score (`fwk.MaxNodeScore`).
pub const SCORE_MAX: i64 = 100;

/// Whether evicting pods could make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// It could.
    Unschedulable,
    /// It could not.
    UnschedulableAndUnresolvable,
    /// The node could not be judged, which ends the attempt.
    Error,
}

/// Why a plugin turned a node down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: &'static str,
    pub code: Code,
    pub reasons: Vec<String>,
}

impl Rejection {
    pub fn of(plugin: &'static str, code: Code, reason: impl Into<String>) -> Self {
        Self { plugin, code, reasons: vec![reason.into()] }
    }
}

/// What a plugin has to say before it looks at single nodes (upstream's PreFilter).
pub enum Prepared {
    /// Nothing to check for this pod.
    Skip,
    Check(Box<dyn Filter>),
    /// Only these nodes can do, and they are still to be checked.
    Narrow(BTreeSet<String>, Box<dyn Filter>),
    /// No node can do.
    Reject(Rejection),
    /// The pod cannot be judged.
    Error(String),
}

/// Checks one node after another; made for one pod.
pub trait Filter {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection>;

    /// A pod came to (`delta` 1) or left (-1) a node since this was made: preemption tries what-ifs so.
    fn shift(&mut self, _pod: &PodInfo, _node: &NodeInfo, _other: &PodInfo, _delta: i64) {}

    fn boxed(&self) -> Box<dyn Filter>;
}

/// Scores feasible nodes; made for one pod and one set of feasible nodes.
pub trait Score {
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// Brings all scores to 0..=100. The default leaves them.
    fn normalize(&self, _nodes: &[&NodeInfo], _scores: &mut [i64]) {}
}

/// What can happen in a cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A node came, or changed in what it offers, its labels or its taints.
    Node,
    /// A pod left a node, or shrank.
    PodGone,
    /// A pod came to a node: affinity may now hold.
    PodPlaced,
    /// Labels of a placed pod or a namespace changed.
    Labels,
    /// A claim, a volume, a storage class or what a CSI driver says of itself or a node changed.
    Storage,
    /// A resource claim, a device class or a slice of devices changed.
    Devices,
}

type MakeFilter = fn(&Cluster, &PodInfo) -> Prepared;
/// `Ok(None)`: nothing to score for this pod (upstream's Skip of PreScore). An error ends the attempt.
pub type Scorer = Result<Option<Box<dyn Score>>, String>;
type MakeScore = fn(&Cluster, &PodInfo, &[&NodeInfo]) -> Scorer;

/// One row: a plugin's name, the weight of its score, and what makes its parts.
pub struct Plugin {
    pub name: &'static str,
    pub weight: i64,
    pub filter: Option<MakeFilter>,
    pub score: Option<MakeScore>,
    /// What may help a pod that this plugin turned down.
    pub wakes: &'static [Wake],
}

const fn row(name: &'static str, weight: i64, filter: Option<MakeFilter>, score: Option<MakeScore>, wakes: &'static [Wake]) -> Plugin {
    Plugin { name, weight, filter, score, wakes }
}

/// Upstream's default profile, in its order.
pub static PLUGINS: [Plugin; 15] = [
    row(node_basics::UNSCHEDULABLE, 0, Some(node_basics::unschedulable), None, &[Wake::Node]),
    row(node_basics::NAME, 0, Some(node_basics::name), None, &[Wake::Node]),
    row(taint_toleration::NAME, 3, Some(taint_toleration::filter), Some(taint_toleration::score), &[Wake::Node]),
    row(node_affinity::NAME, 2, Some(node_affinity::filter), Some(node_affinity::score), &[Wake::Node]),
    row(node_ports::NAME, 0, Some(node_ports::filter), None, &[Wake::Node, Wake::PodGone]),
    row(resources_fit::NAME, 1, Some(resources_fit::filter), Some(resources_fit::score), &[Wake::Node, Wake::PodGone, Wake::Devices]),
    row(volume_restrictions::NAME, 0, Some(volume_restrictions::filter), None, &[Wake::Node, Wake::PodGone, Wake::Storage]),
    row(volume_limits::NAME, 0, Some(volume_limits::filter), None, &[Wake::Node, Wake::PodGone, Wake::Storage]),
    row(volume_binding::NAME, 0, Some(volume_binding::filter), None, &[Wake::Node, Wake::Storage]),
    row(volume_zone::NAME, 0, Some(volume_zone::filter), None, &[Wake::Node, Wake::Storage]),
    row(
        topology_spread::NAME,
        2,
        Some(topology_spread::filter),
        Some(topology_spread::score),
        &[Wake::Node, Wake::PodGone, Wake::PodPlaced, Wake::Labels],
    ),
    row(
        inter_pod_affinity::NAME,
        2,
        Some(inter_pod_affinity::filter),
        Some(inter_pod_affinity::score),
        &[Wake::Node, Wake::PodGone, Wake::PodPlaced, Wake::Labels],
    ),
    row(dynamic_resources::NAME, 2, Some(dynamic_resources::filter), Some(dynamic_resources::score), &[Wake::Node, Wake::Devices]),
    row(balanced::NAME, 1, None, Some(balanced::score), &[]),
    row(image_locality::NAME, 1, None, Some(image_locality::score), &[]),
];

/// Upstream's `DefaultNormalizeScore`: the greatest becomes 100; reversed, the smallest does best.
pub fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = match (max, reverse) {
            (0, true) => SCORE_MAX,
            (0, false) => *score,
            (_, true) => SCORE_MAX - *score * SCORE_MAX / max,
            (_, false) => *score * SCORE_MAX / max,
        };
    }
}
