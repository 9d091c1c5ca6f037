//! NodeResourcesBalancedAllocation: CPU and memory should fill up evenly.

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{SCORE_MAX, Score, Scorer};
use crate::pod::PodInfo;

pub const NAME: &str = "NodeResourcesBalancedAllocation";

struct Balanced;

/// A pod that asks for neither CPU nor memory balances nothing.
pub fn score(_: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    let wanted = &pod.requests.requests;
    if wanted.cpu_milli == 0 && wanted.memory_bytes == 0 { Ok(None) } else { Ok(Some(Box::new(Balanced))) }
}

impl Score for Balanced {
    /// 75 where the pod changes nothing; more where it evens the node out, less where it tilts it.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream computes in float64 too")]
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let wanted = &pod.requests.requests;
        let before = deviation(node, 0, 0);
        let after = deviation(node, wanted.cpu_milli, wanted.memory_bytes);
        let points = |deviation: f64| ((1.0 - deviation) * SCORE_MAX as f64) as i64;
        (SCORE_MAX + SCORE_MAX / 2 + points(after) - points(before)) / 2
    }
}

/// How unevenly a node's CPU and memory are used, with so much more of each. With two resources the standard deviation is
/// half the distance of their shares; with one there is none.
#[expect(clippy::cast_precision_loss, reason = "upstream computes in float64 too")]
fn deviation(node: &NodeInfo, cpu_milli: i64, memory_bytes: i64) -> f64 {
    let share = |capacity: i64, used: i64| (capacity > 0).then(|| (used as f64 / capacity as f64).min(1.0));
    let cpu = share(node.allocatable.cpu_milli, node.requested.cpu_milli + cpu_milli);
    let memory = share(node.allocatable.memory_bytes, node.requested.memory_bytes + memory_bytes);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    }
}
