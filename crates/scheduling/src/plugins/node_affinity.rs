//! NodeAffinity: `spec.nodeSelector` and node affinity.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection, Score, Scorer, normalize_by_max};
use crate::pod::PodInfo;
use crate::selector::NodeTerm;

pub const NAME: &str = "NodeAffinity";

/// Whether the node satisfies the pod's selector and required affinity; also what topology spreading asks.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let wanted = pod.pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    if wanted.into_iter().flatten().any(|(key, value)| node.labels().get(key) != Some(value)) {
        return false;
    }
    pod.node_terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node.name(), node.labels())))
}

#[derive(Clone)]
struct Affinity;

pub fn filter(_: &Cluster, pod: &PodInfo) -> Prepared {
    let selector = pod.pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    if pod.node_terms.is_none() && selector.is_none_or(std::collections::BTreeMap::is_empty) {
        return Prepared::Skip;
    }
    let terms = pod.node_terms.as_deref().unwrap_or(&[]);
    // Terms that each name their nodes narrow the search; one that does not opens it again.
    let mut names: Option<BTreeSet<String>> = None;
    for term in terms {
        match term.names() {
            None => return Prepared::Check(Box::new(Affinity)),
            Some(these) => names.get_or_insert_default().extend(these.into_iter().map(str::to_owned)),
        }
    }
    match names {
        None => Prepared::Check(Box::new(Affinity)),
        Some(names) if names.is_empty() => {
            Prepared::Reject(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "pod affinity terms conflict"))
        }
        Some(names) => Prepared::Narrow(names, Box::new(Affinity)),
    }
}

impl Filter for Affinity {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if matches(pod, node) {
            return Ok(());
        }
        Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "node(s) didn't match Pod's node affinity/selector"))
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

struct Preferred(Vec<(i64, NodeTerm)>);

/// Preferred terms are not validated when a pod is created: errors of all of them end the attempt here.
pub fn score(_: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or(&[]);
    if preferred.is_empty() {
        return Ok(None);
    }
    let (mut terms, mut errors) = (Vec::new(), Vec::new());
    for (i, preferred) in preferred.iter().enumerate().filter(|(_, p)| p.weight != 0) {
        match NodeTerm::of(&preferred.preference, i) {
            Ok(term) => terms.push((i64::from(preferred.weight), term)),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(Some(Box::new(Preferred(terms)))) } else { Err(machinery::field::aggregate(&errors)) }
}

impl Score for Preferred {
    fn score(&self, _: &PodInfo, node: &NodeInfo) -> i64 {
        self.0.iter().filter(|(_, t)| t.matches(node.name(), node.labels())).map(|(w, _)| w).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}
