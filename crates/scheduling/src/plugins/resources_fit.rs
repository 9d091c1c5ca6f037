//! NodeResourcesFit: requests fit into what is free; the least allocated node scores best.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::devices::Devices;
use crate::node::NodeInfo;
use crate::plugins::dynamic_resources::delegated;
use crate::plugins::{Code, Filter, Prepared, Rejection, SCORE_MAX, Score, Scorer};
use crate::pod::PodInfo;

pub const NAME: &str = "NodeResourcesFit";

#[derive(Clone)]
struct Fit(Arc<Devices>);

pub fn filter(cluster: &Cluster, _: &PodInfo) -> Prepared {
    Prepared::Check(Box::new(Fit(cluster.devices.clone())))
}

impl Filter for Fit {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (wanted, offered, used) = (&pod.requests.requests, &node.allocatable, &node.requested);
        let lacks = |wanted: i64, offered: i64, used: i64| wanted > 0 && wanted > offered - used;
        let full = i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.allowed_pods;
        let short = lacks(wanted.cpu_milli, offered.cpu_milli, used.cpu_milli)
            || lacks(wanted.memory_bytes, offered.memory_bytes, used.memory_bytes)
            || lacks(wanted.ephemeral_bytes, offered.ephemeral_bytes, used.ephemeral_bytes);
        if !full && !short && wanted.scalars.is_empty() {
            return Ok(());
        }
        let mut reasons = Vec::new();
        let mut code = Code::Unschedulable;
        if full {
            reasons.push("Too many pods".to_owned());
        }
        let scalars = wanted.scalars.keys().map(String::as_str);
        for name in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(scalars) {
            let (amount, allocatable) = (wanted.get(name), offered.get(name));
            if lacks(amount, allocatable, used.get(name)) && !delegated(&self.0, name, node) {
                reasons.push(format!("Insufficient {name}"));
                if amount > allocatable {
                    code = Code::UnschedulableAndUnresolvable;
                }
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { plugin: NAME, code, reasons }) }
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

pub fn score(cluster: &Cluster, _: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    Ok(Some(Box::new(Fit(cluster.devices.clone()))))
}

impl Score for Fit {
    /// LeastAllocated over CPU and memory, both of weight 1.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let both = [
            (node.allocatable.cpu_milli, node.scored_cpu_milli + pod.requests.scored_cpu_milli),
            (node.allocatable.memory_bytes, node.scored_memory_bytes + pod.requests.scored_memory_bytes),
        ];
        let (sum, weights) = both.into_iter().filter(|(capacity, _)| *capacity > 0).fold((0, 0), |(sum, weights), (capacity, used)| {
            // Wide only where the product could be too great: the wide division is slow, and this runs for every node.
            let free = (capacity - used).max(0);
            let points = free.checked_mul(SCORE_MAX).map_or_else(
                || i64::try_from(i128::from(free) * i128::from(SCORE_MAX) / i128::from(capacity)).unwrap_or(0),
                |points| points / capacity,
            );
            (sum + points, weights + 1)
        });
        if weights == 0 { 0 } else { sum / weights }
    }
}
