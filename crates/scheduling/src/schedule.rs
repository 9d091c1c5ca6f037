//! One attempt for one pod: filter every node, score those that are left, or say why none is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::message;
use crate::node::NodeInfo;
use crate::plugins::{Code, Filter, PLUGINS, Prepared, Rejection};
use crate::pod::PodInfo;

/// What came of an attempt.
#[derive(Debug)]
pub enum Verdict {
    /// Bind the pod to `node`, which shares the highest score with `ties` (itself included, in name order).
    Place { node: String, ties: Vec<String>, scores: Vec<NodeScore> },
    /// No node will do; `message` is what upstream writes into the condition and the event, without the preemption part.
    Unschedulable(Unschedulable),
    /// The pod could not be judged.
    Error(String),
}

/// A node's points.
#[derive(Clone, Debug)]
pub struct NodeScore {
    pub node: String,
    pub total: i64,
    /// Plugin, weighted points.
    pub plugins: Vec<(&'static str, i64)>,
}

#[derive(Clone, Debug)]
pub struct Unschedulable {
    pub message: String,
    pub rejected: BTreeMap<String, Rejection>,
    /// Said of the pod as a whole, before any node was looked at.
    pub before_nodes: Option<Rejection>,
    /// Nodes left out without being looked at (a plugin narrowed the search).
    pub unseen: Vec<String>,
    pub nodes: usize,
}

/// The filters that have something to check for this pod, prepared.
pub struct Filters {
    list: Vec<Box<dyn Filter>>,
    only: Option<BTreeSet<String>>,
    narrowed_by: Option<&'static str>,
}

impl Clone for Filters {
    fn clone(&self) -> Self {
        Self { list: self.list.iter().map(|f| f.boxed()).collect(), only: self.only.clone(), narrowed_by: self.narrowed_by }
    }
}

/// Why preparing ended the attempt.
pub enum Stop {
    Reject(Rejection),
    Error(String),
}

impl Filters {
    pub fn prepare(cluster: &Cluster, pod: &PodInfo) -> Result<Self, Stop> {
        let mut out = Self { list: Vec::new(), only: None, narrowed_by: None };
        for plugin in &PLUGINS {
            let Some(make) = plugin.filter else { continue };
            match make(cluster, pod) {
                Prepared::Skip => {}
                Prepared::Check(filter) => out.list.push(filter),
                Prepared::Narrow(nodes, filter) => {
                    out.only = Some(match out.only.take() {
                        None => nodes,
                        Some(before) => before.intersection(&nodes).cloned().collect(),
                    });
                    out.narrowed_by = Some(plugin.name);
                    out.list.push(filter);
                }
                Prepared::Reject(rejection) => return Err(Stop::Reject(rejection)),
                Prepared::Error(why) => return Err(Stop::Error(format!("running PreFilter plugin {:?}: {why}", plugin.name))),
            }
        }
        Ok(out)
    }

    pub fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        self.list.iter().try_for_each(|f| f.check(pod, node))
    }

    pub fn shift(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, delta: i64) {
        for filter in &mut self.list {
            filter.shift(pod, node, other, delta);
        }
    }

    /// Checks a node with the pods that are nominated to it and matter as much as this one already there, and, as those may
    /// never come, also without them.
    pub fn check_nominated(&self, cluster: &Cluster, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if cluster.nominated.is_empty() {
            return self.check(pod, node);
        }
        let expected: Vec<&Arc<PodInfo>> = cluster
            .nominated
            .values()
            .filter(|(name, p)| name == node.name() && p.priority() >= pod.priority() && p.key() != pod.key())
            .map(|(_, p)| p)
            .collect();
        if !expected.is_empty() {
            let mut filters = self.clone();
            let mut with = node.clone();
            for other in expected {
                with.add(other.clone());
                filters.shift(pod, &with, other, 1);
            }
            filters.check(pod, &with)?;
        }
        self.check(pod, node)
    }
}

/// Upstream's `minFeasibleNodesToFind`.
const FEASIBLE_MIN: usize = 100;

/// How far to look for feasible nodes, and where to go on from.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `percentageOfNodesToScore`: stop after so many feasible nodes; 0 lets the size of the cluster decide.
    pub percentage: usize,
    /// The node, by its place in name order, from which the next attempt looks on, so that all get their turn.
    pub start: usize,
    /// Report scores and ties, not only the choice.
    pub explain: bool,
}

impl Search {
    /// `numFeasibleNodesToFind`.
    fn enough(&self, nodes: usize) -> usize {
        if nodes < FEASIBLE_MIN || self.percentage >= 100 {
            return nodes;
        }
        let percentage = if self.percentage == 0 { 50_usize.saturating_sub(nodes / 125).max(5) } else { self.percentage };
        (nodes * percentage / 100).max(FEASIBLE_MIN)
    }
}

/// Decides where `pod` goes, looking at all nodes. `choose` picks one of n equals (upstream picks at random).
pub fn schedule(cluster: &Cluster, pod: &PodInfo, choose: &mut dyn FnMut(usize) -> usize) -> Verdict {
    schedule_with(cluster, pod, &mut Search { percentage: 100, start: 0, explain: true }, choose)
}

/// Decides where `pod` goes, looking no further than `search` says.
pub fn schedule_with(cluster: &Cluster, pod: &PodInfo, search: &mut Search, choose: &mut dyn FnMut(usize) -> usize) -> Verdict {
    if cluster.nodes.is_empty() {
        return Verdict::Unschedulable(Unschedulable {
            message: "no nodes available to schedule pods".to_owned(),
            rejected: BTreeMap::new(),
            before_nodes: None,
            unseen: Vec::new(),
            nodes: 0,
        });
    }
    let filters = match Filters::prepare(cluster, pod) {
        Ok(filters) => filters,
        Err(Stop::Error(why)) => return Verdict::Error(why),
        Err(Stop::Reject(rejection)) => return Verdict::Unschedulable(message::before_nodes(cluster.nodes.len(), rejection)),
    };
    if let Some(node) = nominated(cluster, pod)
        && filters.check_nominated(cluster, pod, node).is_ok()
    {
        let node = node.name().to_owned();
        return Verdict::Place { ties: vec![node.clone()], node, scores: Vec::new() };
    }
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    let mut rejected = BTreeMap::new();
    let mut unseen = Vec::new();
    let enough = search.enough(cluster.nodes.len());
    let start = search.start % cluster.nodes.len();
    let mut looked_at = 0;
    for node in cluster.nodes.values().skip(start).chain(cluster.nodes.values().take(start)) {
        if feasible.len() >= enough {
            break;
        }
        looked_at += 1;
        if filters.only.as_ref().is_some_and(|only| !only.contains(node.name())) {
            unseen.push(node.name().to_owned());
            continue;
        }
        match filters.check_nominated(cluster, pod, node) {
            Ok(()) => feasible.push(node),
            Err(rejection) if rejection.code == Code::Error => {
                return Verdict::Error(format!("running {:?} filter plugin: {}", rejection.plugin, rejection.reasons.join(", ")));
            }
            Err(rejection) => {
                rejected.insert(node.name().to_owned(), rejection);
            }
        }
    }
    search.start = (start + looked_at) % cluster.nodes.len();
    if feasible.is_empty() {
        return Verdict::Unschedulable(message::no_node(cluster.nodes.len(), rejected, unseen, filters.narrowed_by));
    }
    if feasible.len() == 1 {
        let node = feasible[0].name().to_owned();
        return Verdict::Place { ties: vec![node.clone()], node, scores: Vec::new() };
    }
    let (totals, scores) = match score(cluster, pod, &feasible, search.explain) {
        Ok(scored) => scored,
        Err(why) => return Verdict::Error(why),
    };
    let best = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = totals.iter().enumerate().filter(|(_, total)| **total == best).map(|(i, _)| i).collect();
    let name = |i: usize| feasible[i].name().to_owned();
    let node = name(ties[choose(ties.len()).min(ties.len() - 1)]);
    let mut ties: Vec<String> = if search.explain { ties.into_iter().map(name).collect() } else { vec![node.clone()] };
    ties.sort();
    Verdict::Place { node, ties, scores }
}

/// The node on which this pod made room before; it goes there if it can.
fn nominated<'a>(cluster: &'a Cluster, pod: &PodInfo) -> Option<&'a NodeInfo> {
    let name = pod.pod.status.as_ref()?.nominated_node_name.as_deref()?;
    cluster.nodes.get(name)
}

/// The sum for each node, and how it came about if that is asked for.
fn score(cluster: &Cluster, pod: &PodInfo, feasible: &[&NodeInfo], explain: bool) -> Result<(Vec<i64>, Vec<NodeScore>), String> {
    let mut totals = vec![0; feasible.len()];
    let mut scores = vec![0; feasible.len()];
    let explained = feasible.iter().filter(|_| explain);
    let mut out: Vec<NodeScore> = explained.map(|n| NodeScore { node: n.name().to_owned(), total: 0, plugins: Vec::new() }).collect();
    for plugin in &PLUGINS {
        let Some(make) = plugin.score else { continue };
        let scorer = make(cluster, pod, feasible).map_err(|why| format!("running PreScore plugin {:?}: {why}", plugin.name))?;
        let Some(scorer) = scorer else { continue };
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = scorer.score(pod, node);
        }
        scorer.normalize(feasible, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * plugin.weight;
        }
        for (node, score) in out.iter_mut().zip(&scores) {
            node.total += score * plugin.weight;
            node.plugins.push((plugin.name, score * plugin.weight));
        }
    }
    Ok((totals, out))
}
