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
        let mut reasons = Vec::new();
        let mut code = Code::Unschedulable;
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > node.allowed_pods {
            reasons.push("Too many pods".to_owned());
        }
        let wanted = &pod.requests.requests;
        let scalars = wanted.scalars.keys().map(String::as_str);
        for name in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(scalars) {
            let amount = wanted.get(name);
            let allocatable = node.allocatable.get(name);
            if amount > 0 && amount > allocatable - node.requested.get(name) && !delegated(&self.0, name, node) {
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
            let free = i128::from((capacity - used).max(0)) * i128::from(SCORE_MAX) / i128::from(capacity);
            (sum + i64::try_from(free).unwrap_or(0), weights + 1)
        });
        if weights == 0 { 0 } else { sum / weights }
    }
}
