//! TaintToleration: nodes repel pods that do not tolerate their taints.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection, Score, Scorer, normalize_by_max};
use crate::pod::PodInfo;

pub const NAME: &str = "TaintToleration";

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or(&[])
}

/// Whether one toleration covers a taint (`Toleration.ToleratesTaint`).
pub fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |s: &Option<String>| s.clone().unwrap_or_default();
    let (effect, key) = (set(&toleration.effect), set(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => set(&toleration.value) == taint.value.clone().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|t| covers(t, taint))
}

/// The first taint that keeps new pods off and is not tolerated.
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    node.taints().iter().find(|t| (t.effect == "NoSchedule" || t.effect == "NoExecute") && !tolerates(pod, t))
}

#[derive(Clone)]
struct Taints;

pub fn filter(_: &Cluster, _: &PodInfo) -> Prepared {
    Prepared::Check(Box::new(Taints))
}

impl Filter for Taints {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match untolerated(pod, node) {
            None => Ok(()),
            Some(_) => Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "node(s) had untolerated taint(s)")),
        }
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

pub fn score(_: &Cluster, _: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    Ok(Some(Box::new(Taints)))
}

impl Score for Taints {
    /// How many "better not" taints the pod does not tolerate.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = |t: &Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        let count = node
            .taints()
            .iter()
            .filter(|t| t.effect == "PreferNoSchedule" && !tolerations(pod).iter().any(|o| soft(o) && covers(o, t)))
            .count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }
}
