//! PodTopologySpread: pods of one kind spread over zones, hosts or whatever the constraints name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::cluster::{Cluster, SpreadKind};
use crate::node::NodeInfo;
use crate::plugins::node_affinity;
use crate::plugins::taint_toleration::untolerated;
use crate::plugins::{Code, Filter, Prepared, Rejection, SCORE_MAX, Score, Scorer};
use crate::pod::PodInfo;
use crate::selector::{Labels, Selector};

pub const NAME: &str = "PodTopologySpread";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// One constraint, compiled.
#[derive(Clone, Debug)]
struct Constraint {
    max_skew: i64,
    key: String,
    selector: Selector,
    min_domains: i64,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn of(c: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let mut selector = Selector::of(c.label_selector.as_ref());
        // KEP-3243: the values of these labels are the pod's own.
        let own = c.match_label_keys.iter().flatten().filter_map(|key| Some((key.clone(), labels.get(key)?.clone())));
        let own: Labels = own.collect();
        if !own.is_empty() && c.label_selector.is_some() {
            selector = selector.and(Selector::of_set(&own));
        }
        Self {
            max_skew: i64::from(c.max_skew),
            key: c.topology_key.clone(),
            selector,
            min_domains: i64::from(c.min_domains.unwrap_or(1)),
            honor_affinity: c.node_affinity_policy.as_deref().is_none_or(|p| p == "Honor"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || node_affinity::matches(pod, node)) && (!self.honor_taints || untolerated(pod, node).is_none())
    }

    fn count(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        // Upstream counts nobody for a selector without requirements, although the pod itself matches it.
        if self.selector.is_empty() {
            return 0;
        }
        let same = |p: &PodInfo| !p.terminating && p.namespace() == pod.namespace() && self.selector.matches(p.labels());
        i64::try_from(node.pods.iter().filter(|p| same(p)).count()).unwrap_or(i64::MAX)
    }
}

fn constraints(pod: &PodInfo, action: &str) -> Vec<Constraint> {
    let all = pod.pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten());
    all.filter(|c| c.when_unsatisfiable == action).map(|c| Constraint::of(c, pod.labels())).collect()
}

fn has_own_constraints(pod: &PodInfo) -> bool {
    pod.pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref()).is_some_and(|c| !c.is_empty())
}

/// Upstream's system defaults, for pods that some Service or owner selects.
fn default_constraints(cluster: &Cluster, pod: &PodInfo) -> Vec<Constraint> {
    let owner = pod.pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    let mut selector: Option<Selector> = None;
    for spread in cluster.spread.values().filter(|s| s.namespace == pod.namespace()) {
        let mine = match &spread.kind {
            SpreadKind::Service => !spread.selector.is_empty() && spread.selector.matches(pod.labels()),
            SpreadKind::Owner(kind, name) => owner.is_some_and(|o| o.kind == *kind && o.name == *name),
        };
        if mine {
            selector = Some(match selector.take() {
                None => spread.selector.clone(),
                Some(before) => before.and(spread.selector.clone()),
            });
        }
    }
    let Some(selector) = selector.filter(|s| !s.is_empty()) else { return Vec::new() };
    let make = |key: &str, max_skew| Constraint {
        max_skew,
        key: key.to_owned(),
        selector: selector.clone(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    vec![make(HOSTNAME, 3), make(ZONE, 5)]
}

fn has_all_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| node.labels().contains_key(&c.key))
}

/// Pods per domain of each required constraint.
#[derive(Clone)]
struct Hard {
    constraints: Vec<Constraint>,
    counts: Vec<BTreeMap<String, i64>>,
}

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    let constraints = constraints(pod, "DoNotSchedule");
    if constraints.is_empty() {
        return Prepared::Skip;
    }
    let mut counts = vec![BTreeMap::new(); constraints.len()];
    for node in cluster.nodes.values().filter(|n| has_all_keys(&constraints, n)) {
        for (c, counts) in constraints.iter().zip(&mut counts) {
            if c.includes(pod, node) {
                *counts.entry(node.labels()[&c.key].clone()).or_insert(0) += c.count(pod, node);
            }
        }
    }
    Prepared::Check(Box::new(Hard { constraints, counts }))
}

impl Filter for Hard {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        for (c, counts) in self.constraints.iter().zip(&self.counts) {
            let Some(domain) = node.labels().get(&c.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, reason));
            };
            let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
            let fewest = if domains < c.min_domains { 0 } else { counts.values().copied().min().unwrap_or(0) };
            let own = i64::from(c.selector.matches(pod.labels()));
            let here = counts.get(domain).copied().unwrap_or(0);
            if here + own - fewest > c.max_skew {
                return Err(Rejection::of(NAME, Code::Unschedulable, "node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn shift(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, delta: i64) {
        if other.namespace() != pod.namespace() || !has_all_keys(&self.constraints, node) || other.terminating && delta > 0 {
            return;
        }
        for (c, counts) in self.constraints.iter().zip(&mut self.counts) {
            if c.selector.matches(other.labels())
                && c.includes(pod, node)
                && !other.terminating
                && let Some(count) = counts.get_mut(&node.labels()[&c.key])
            {
                *count += delta;
            }
        }
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

struct Soft {
    constraints: Vec<Constraint>,
    counts: Vec<BTreeMap<String, i64>>,
    weights: Vec<f64>,
    /// Feasible nodes without one of the keys: they score nothing.
    ignored: BTreeSet<String>,
}

#[expect(clippy::cast_precision_loss, reason = "upstream computes in float64 too")]
pub fn score(cluster: &Cluster, pod: &PodInfo, feasible: &[&NodeInfo]) -> Scorer {
    let own = has_own_constraints(pod);
    let constraints = if own { constraints(pod, "ScheduleAnyway") } else { default_constraints(cluster, pod) };
    if constraints.is_empty() {
        return Ok(None);
    }
    let mut counts: Vec<BTreeMap<String, i64>> = vec![BTreeMap::new(); constraints.len()];
    let mut ignored = BTreeSet::new();
    for node in feasible {
        if own && !has_all_keys(&constraints, node) {
            ignored.insert(node.name().to_owned());
            continue;
        }
        for (c, counts) in constraints.iter().zip(&mut counts).filter(|(c, _)| c.key != HOSTNAME) {
            let domain = node.labels().get(&c.key).cloned().unwrap_or_default();
            counts.entry(domain).or_insert(0);
        }
    }
    let weights = constraints
        .iter()
        .zip(&counts)
        .map(|(c, counts)| {
            let domains = if c.key == HOSTNAME { feasible.len() - ignored.len() } else { counts.len() };
            (domains as f64 + 2.0).ln()
        })
        .collect();
    for node in cluster.nodes.values().filter(|n| !own || has_all_keys(&constraints, n)) {
        for (c, counts) in constraints.iter().zip(&mut counts) {
            let domain = node.labels().get(&c.key).map_or("", String::as_str);
            if c.includes(pod, node)
                && let Some(count) = counts.get_mut(domain)
            {
                *count += c.count(pod, node);
            }
        }
    }
    Ok(Some(Box::new(Soft { constraints, counts, weights, ignored })))
}

impl Score for Soft {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream computes in float64 too")]
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        if self.ignored.contains(node.name()) {
            return 0;
        }
        let mut sum = 0.0;
        for ((c, counts), weight) in self.constraints.iter().zip(&self.counts).zip(&self.weights) {
            if let Some(domain) = node.labels().get(&c.key) {
                let count = if c.key == HOSTNAME { c.count(pod, node) } else { counts.get(domain).copied().unwrap_or(0) };
                sum += count as f64 * weight + (c.max_skew - 1) as f64;
            }
        }
        sum.round() as i64
    }

    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let counted = |i: usize| !self.ignored.contains(nodes[i].name());
        let known: Vec<i64> = scores.iter().enumerate().filter(|(i, _)| counted(*i)).map(|(_, s)| *s).collect();
        let (min, max) = (known.iter().copied().min().unwrap_or(0), known.iter().copied().max().unwrap_or(0).max(0));
        for (i, score) in scores.iter_mut().enumerate() {
            *score = if !counted(i) {
                0
            } else if max == 0 {
                SCORE_MAX
            } else {
                SCORE_MAX * (max + min - *score) / max
            };
        }
    }
}
