//! NodeUnschedulable and NodeName: a node that takes no new pods, a pod that names its node.

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::taint_toleration::tolerates;
use crate::plugins::{Code, Filter, Prepared, Rejection};
use crate::pod::PodInfo;
use k8s_openapi::api::core::v1::Taint;

pub const UNSCHEDULABLE: &str = "NodeUnschedulable";
pub const NAME: &str = "NodeName";

#[derive(Clone)]
struct Unschedulable;

pub fn unschedulable(_: &Cluster, _: &PodInfo) -> Prepared {
    Prepared::Check(Box::new(Unschedulable))
}

impl Filter for Unschedulable {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if node.node.spec.as_ref().and_then(|s| s.unschedulable) != Some(true) {
            return Ok(());
        }
        let taint = Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        if tolerates(pod, &taint) {
            return Ok(());
        }
        Err(Rejection::of(UNSCHEDULABLE, Code::UnschedulableAndUnresolvable, "node(s) were unschedulable"))
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

#[derive(Clone)]
struct Name;

pub fn name(_: &Cluster, pod: &PodInfo) -> Prepared {
    if pod.node_name().is_none() { Prepared::Skip } else { Prepared::Check(Box::new(Name)) }
}

impl Filter for Name {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.node_name() == Some(node.name()) {
            return Ok(());
        }
        Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "node(s) didn't match the requested node name"))
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}
