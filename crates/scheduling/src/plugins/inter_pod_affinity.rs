//! InterPodAffinity: pods that want to be near, or away from, other pods.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, Prepared, Rejection, SCORE_MAX, Score, Scorer};
use crate::pod::{PodInfo, Term};
use crate::selector::Labels;

pub const NAME: &str = "InterPodAffinity";
/// What an existing pod's required affinity to the new pod counts for (`hardPodAffinityWeight`).
const HARD_WEIGHT: i64 = 1;

/// Topology key and value, to how many pods (or what weight) are there.
type Pairs = BTreeMap<String, BTreeMap<String, i64>>;

fn add(pairs: &mut Pairs, key: &str, node: &NodeInfo, amount: i64) {
    if let Some(value) = node.labels().get(key) {
        // Most keys are there already: look before allocating.
        match pairs.get_mut(key) {
            Some(values) => match values.get_mut(value) {
                Some(count) => *count += amount,
                None => {
                    values.insert(value.clone(), amount);
                }
            },
            None => {
                pairs.insert(key.to_owned(), BTreeMap::from([(value.clone(), amount)]));
            }
        }
    }
}

fn get(pairs: &Pairs, key: &str, value: &str) -> i64 {
    pairs.get(key).and_then(|v| v.get(value)).copied().unwrap_or(0)
}

#[derive(Clone)]
struct Rules {
    /// Domains where an existing pod does not want the new one.
    repelled: Pairs,
    /// Domains with pods that satisfy all required affinity terms of the new pod.
    wanted: Pairs,
    /// Domains with pods that one of its anti-affinity terms names.
    unwanted: Pairs,
    namespaces: BTreeMap<String, Labels>,
}

impl Rules {
    fn labels_of(&self, namespace: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces.get(namespace).unwrap_or(&NONE)
    }

    /// Counts one existing pod on a node in or out.
    fn count(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, delta: i64) {
        let mine = self.labels_of(pod.namespace()).clone();
        for term in other.anti_affinity.iter().filter(|t| t.matches(pod, &mine)) {
            add(&mut self.repelled, &term.topology_key, node, delta);
        }
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return;
        }
        let theirs = self.labels_of(other.namespace()).clone();
        if matches_all(&pod.affinity, other, &theirs) {
            for term in &pod.affinity {
                add(&mut self.wanted, &term.topology_key, node, delta);
            }
        }
        for term in pod.anti_affinity.iter().filter(|t| t.matches(other, &theirs)) {
            add(&mut self.unwanted, &term.topology_key, node, delta);
        }
    }
}

fn matches_all(terms: &[Term], pod: &PodInfo, namespace_labels: &Labels) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pod, namespace_labels))
}

pub fn filter(cluster: &Cluster, pod: &PodInfo) -> Prepared {
    let own = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
    let others = cluster.any_anti_affinity();
    if !own && !others {
        return Prepared::Skip;
    }
    let empty = Pairs::new;
    let mut rules = Rules { repelled: empty(), wanted: empty(), unwanted: empty(), namespaces: cluster.namespaces.clone() };
    for node in cluster.nodes.values().filter(|n| own || n.with_anti_affinity > 0) {
        for other in &node.pods {
            rules.count(pod, node, other, 1);
        }
    }
    if !own && rules.repelled.is_empty() {
        return Prepared::Skip;
    }
    Prepared::Check(Box::new(rules))
}

impl Filter for Rules {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.affinity_holds(pod, node) {
            return Err(Rejection::of(NAME, Code::UnschedulableAndUnresolvable, "node(s) didn't match pod affinity rules"));
        }
        let unwanted = |t: &Term| node.labels().get(&t.topology_key).is_some_and(|v| get(&self.unwanted, &t.topology_key, v) > 0);
        if pod.anti_affinity.iter().any(unwanted) {
            return Err(Rejection::of(NAME, Code::Unschedulable, "node(s) didn't match pod anti-affinity rules"));
        }
        let repelled = self.repelled.iter().any(|(key, values)| node.labels().get(key).and_then(|v| values.get(v)).is_some_and(|n| *n > 0));
        if repelled {
            return Err(Rejection::of(NAME, Code::Unschedulable, "node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn shift(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, delta: i64) {
        self.count(pod, node, other, delta);
    }

    fn boxed(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Rules {
    fn affinity_holds(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let mut present = true;
        for term in &pod.affinity {
            let Some(value) = node.labels().get(&term.topology_key) else { return false };
            present &= get(&self.wanted, &term.topology_key, value) > 0;
        }
        // The first pod of a group that wants to be together may go anywhere, if it is of that group itself.
        let nobody = || self.wanted.values().all(|v| v.values().all(|n| *n <= 0));
        present || nobody() && matches_all(&pod.affinity, pod, self.labels_of(pod.namespace()))
    }
}

/// Weights by topology pair.
struct Weights(Pairs);

pub fn score(cluster: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    let own = !pod.preferred_affinity.is_empty() || !pod.preferred_anti_affinity.is_empty();
    if !own && !cluster.any_affinity() {
        return Ok(None);
    }
    let mine = cluster.namespace_labels(pod.namespace());
    let mut pairs = Pairs::new();
    for node in cluster.nodes.values().filter(|n| own || n.with_affinity > 0) {
        for other in node.pods.iter().filter(|p| own || p.has_affinity()) {
            let theirs = cluster.namespace_labels(other.namespace());
            let mut weigh = |terms: &[Term], target: &PodInfo, labels: &Labels, times: i64| {
                for term in terms.iter().filter(|t| t.matches(target, labels)) {
                    add(&mut pairs, &term.topology_key, node, term.weight * times);
                }
            };
            weigh(&pod.preferred_affinity, other, theirs, 1);
            weigh(&pod.preferred_anti_affinity, other, theirs, -1);
            weigh(&other.preferred_affinity, pod, mine, 1);
            weigh(&other.preferred_anti_affinity, pod, mine, -1);
            for term in other.affinity.iter().filter(|t| t.matches(pod, mine)) {
                add(&mut pairs, &term.topology_key, node, HARD_WEIGHT);
            }
        }
    }
    if pairs.is_empty() { Ok(None) } else { Ok(Some(Box::new(Weights(pairs)))) }
}

impl Score for Weights {
    fn score(&self, _: &PodInfo, node: &NodeInfo) -> i64 {
        self.0.iter().filter_map(|(key, values)| values.get(node.labels().get(key)?)).sum()
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream computes in float64 too")]
    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let (Some(min), Some(max)) = (scores.iter().copied().min(), scores.iter().copied().max()) else { return };
        let range = max - min;
        for score in scores {
            *score = if range == 0 { 0 } else { (SCORE_MAX as f64 * ((*score - min) as f64 / range as f64)) as i64 };
        }
    }
}
