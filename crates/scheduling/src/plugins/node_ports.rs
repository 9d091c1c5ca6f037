//! NodePorts: a port of the node belongs to one pod.

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;

pub const NAME: &str = "NodePorts";

#[derive(Clone)]
struct Ports;

pub fn filter(_: &Cluster, pod: &PodInfo) -> Prepared {
    if pod.ports.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Ports)) }
}

impl Filter for Ports {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = node.ports.iter().any(|t| pod.ports.iter().any(|p| p.conflicts(t)));
        if !taken {
            return Ok(());
        }
        Err(Rejection::of(NAME, Code::Unschedulable, "node(s) didn't have free ports for the requested pod ports"))
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
