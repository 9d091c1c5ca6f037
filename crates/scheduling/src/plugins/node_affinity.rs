//! NodeAffinity: `spec.nodeSelector` and node affinity.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection, Score, normalize_by_max};
use crate::pod::PodInfo;
use crate::selector::NodeTerm;

pub const NAME: &str = "NodeAffinity";

/// Whether the node satisfies the pod's selector and required affinity; also what topology spreading asks.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let wanted = pod.pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    if wanted.into_iter().flatten().any(|(key, value)| node.labels().get(key) != Some(value)) {
        return false;
    }
    match &pod.node_terms {
        Ok(None) => true,
        Ok(Some(terms)) => terms.iter().any(|t| t.matches(node.name(), node.labels())),
        Err(_) => false,
    }
}

#[derive(Clone)]
struct Affinity;

pub fn filter(_: &Cluster, pod: &PodInfo) -> Prepared {
    let selector = pod.pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    let terms = match &pod.node_terms {
        Err(why) => return Prepared::Error(why.clone()),
        Ok(None) if selector.is_none_or(std::collections::BTreeMap::is_empty) => return Prepared::Skip,
        Ok(terms) => terms.as_deref().unwrap_or(&[]),
    };
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

pub fn score(_: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Option<Box<dyn Score>> {
    let affinity = pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref().filter(|p| !p.is_empty())?;
    let terms = preferred.iter().filter_map(|p| Some((i64::from(p.weight), NodeTerm::of(&p.preference).ok()?)));
    Some(Box::new(Preferred(terms.collect())))
}

impl Score for Preferred {
    fn score(&self, _: &PodInfo, node: &NodeInfo) -> i64 {
        self.0.iter().filter(|(_, t)| t.matches(node.name(), node.labels())).map(|(w, _)| w).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }
}
