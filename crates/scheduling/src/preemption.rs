//! DefaultPreemption: which pods of less importance would have to go for a pod to fit, and on which node.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::message;
use crate::node::NodeInfo;
use crate::plugins::dynamic_resources;
use crate::plugins::{Code, Rejection};
use crate::pod::PodInfo;
use crate::schedule::{Filters, Unschedulable};

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// A node where evicting helps.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: String,
    /// Those that violate a disruption budget first, each part by falling importance.
    pub victims: Vec<Arc<PodInfo>>,
    pub budget_violations: usize,
}

#[derive(Debug)]
pub struct Preemption {
    pub candidates: Vec<Candidate>,
    /// Nodes tried in vain, and why.
    pub rejected: BTreeMap<String, Rejection>,
    /// What to add to the attempt's message when there is no candidate.
    pub message: String,
    /// A claim (`namespace/name`) whose devices should be freed: it is not used and ties the pod to nodes it cannot go to.
    pub free_claim: Option<String>,
}

impl Preemption {
    fn none(message: String) -> Self {
        Self { candidates: Vec::new(), rejected: BTreeMap::new(), message, free_claim: None }
    }

    /// The candidates that rank best; upstream takes any of them.
    pub fn best(&self) -> Vec<&Candidate> {
        let Some(best) = self.candidates.iter().map(rank).min() else { return Vec::new() };
        self.candidates.iter().filter(|c| rank(c) == best).collect()
    }
}

/// What the DynamicResources plugin says after a failed attempt, and the claim it frees.
fn claims_text(cluster: &Cluster, pod: &PodInfo, failed: &Unschedulable) -> (&'static str, Option<String>) {
    if !dynamic_resources::concerns(cluster, pod) {
        return ("no new claims to deallocate", None);
    }
    match dynamic_resources::to_free(cluster, pod, &failed.rejected) {
        Some(claim) => ("deallocation of ResourceClaim completed", Some(claim)),
        None => ("still not schedulable", None),
    }
}

/// Looks for victims after an attempt failed. Empty `candidates` and a message where there are none.
pub fn preempt(cluster: &Cluster, pod: &PodInfo, failed: &Unschedulable) -> Preemption {
    if failed.before_nodes.is_some() {
        // The plugins that would preempt never saw the pod; upstream reports their missing state.
        return Preemption::none("not found".to_owned());
    }
    if failed.nodes == 0 {
        return Preemption::none(String::new());
    }
    let (claims, free_claim) = claims_text(cluster, pod, failed);
    let none = |message: String| Preemption { free_claim: free_claim.clone(), ..Preemption::none(message) };
    let policy = pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref());
    if policy == Some("Never") {
        return none(format!("{claims}, preemption: not eligible due to preemptionPolicy=Never."));
    }
    if waits_for_victims(cluster, pod) {
        return none(format!("{claims}, preemption: not eligible due to a terminating pod on the nominated node."));
    }
    let mut out = none(String::new());
    if let Ok(filters) = Filters::prepare(cluster, pod) {
        for (name, _) in failed.rejected.iter().filter(|(_, r)| r.code == Code::Unschedulable) {
            let Some(node) = cluster.nodes.get(name) else { continue };
            match victims(cluster, pod, node, &filters) {
                Ok(candidate) => out.candidates.push(candidate),
                Err(rejection) => {
                    out.rejected.insert(name.clone(), rejection);
                }
            }
        }
    }
    if out.candidates.is_empty() {
        let unhelpful = failed.nodes - out.rejected.len();
        let tried = out.rejected.values().flat_map(|r| r.reasons.iter().map(String::as_str));
        let text = message::histogram(tried.chain(std::iter::repeat_n(NOT_HELPFUL, unhelpful)));
        out.message = format!("{claims}, preemption: 0/{} nodes are available: {text}.", failed.nodes);
    }
    out
}

/// The pod preempted before, and its victims are still leaving.
fn waits_for_victims(cluster: &Cluster, pod: &PodInfo) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("");
    cluster.nodes.get(nominated).is_some_and(|n| n.pods.iter().any(|p| p.terminating && p.priority() < pod.priority()))
}

/// Takes all lesser pods off the node, then puts back as many as fit, the most important first.
fn victims(cluster: &Cluster, pod: &PodInfo, node: &NodeInfo, filters: &Filters) -> Result<Candidate, Rejection> {
    let mut lesser: Vec<Arc<PodInfo>> = node.pods.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if lesser.is_empty() {
        return Err(Rejection::of("", Code::UnschedulableAndUnresolvable, NO_VICTIMS));
    }
    let mut node = node.clone();
    let mut filters = filters.clone();
    for other in &lesser {
        node.remove(&other.key());
        filters.shift(pod, &node, other, -1);
    }
    filters.check_nominated(cluster, pod, &node)?;
    lesser.sort_by(|a, b| importance(a, b));
    let (violating, harmless) = split_by_budget(cluster, lesser);
    let mut victims = Vec::new();
    let mut budget_violations = 0;
    for (violates, other) in violating.into_iter().map(|p| (true, p)).chain(harmless.into_iter().map(|p| (false, p))) {
        node.add(other.clone());
        filters.shift(pod, &node, &other, 1);
        if filters.check_nominated(cluster, pod, &node).is_err() {
            node.remove(&other.key());
            filters.shift(pod, &node, &other, -1);
            budget_violations += usize::from(violates);
            victims.push(other);
        }
    }
    Ok(Candidate { node: node.name().to_owned(), victims, budget_violations })
}

/// More important first: higher priority, then longer running (`MoreImportantPod`).
fn importance(a: &PodInfo, b: &PodInfo) -> Ordering {
    let started = |p: &PodInfo| p.start_time().map(|t| t.0);
    b.priority().cmp(&a.priority()).then_with(|| match (started(a), started(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // One that has not started counts as starting now.
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    })
}

fn split_by_budget(cluster: &Cluster, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = cluster.budgets.values().map(|b| b.disruptions_allowed).collect();
    let (mut violating, mut harmless) = (Vec::new(), Vec::new());
    for pod in pods {
        let mut violates = false;
        if !pod.labels().is_empty() {
            for (budget, allowed) in cluster.budgets.values().zip(&mut allowed) {
                let covered = budget.namespace == pod.namespace() && !budget.selector.is_empty() && budget.selector.matches(pod.labels());
                if covered && !budget.disrupted.iter().any(|n| n == pod.name()) {
                    *allowed -= 1;
                    violates |= *allowed < 0;
                }
            }
        }
        if violates { violating.push(pod) } else { harmless.push(pod) }
    }
    (violating, harmless)
}

type Rank = (usize, i32, i128, usize, Reverse<Option<k8s_openapi::jiff::Timestamp>>);

/// Less is better (`pickOneNodeForPreemption`).
fn rank(c: &Candidate) -> Rank {
    let highest = c.victims.iter().map(|p| p.priority()).max().unwrap_or(i32::MIN);
    let sum = c.victims.iter().map(|p| i128::from(p.priority()) + (1 << 31)).sum();
    let oldest = c.victims.iter().filter(|p| p.priority() == highest).filter_map(|p| p.start_time()).map(|t| t.0).min();
    (c.budget_violations, highest, sum, c.victims.len(), Reverse(oldest))
}
