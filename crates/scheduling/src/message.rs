//! What is said when nothing fits: upstream's `FitError`, word for word.

use std::collections::BTreeMap;

use crate::plugins::Rejection;
use crate::schedule::Unschedulable;

/// Reasons with their counts, sorted as strings: `2 Insufficient cpu, 3 node(s) had untolerated taint(s)`.
pub fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut texts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    texts.sort();
    texts.join(", ")
}

/// The pod was turned down as a whole.
pub fn before_nodes(nodes: usize, rejection: Rejection) -> Unschedulable {
    let message = format!("0/{nodes} nodes are available: {}.", rejection.reasons.join(", "));
    Unschedulable { message, rejected: BTreeMap::new(), before_nodes: Some(rejection), unseen: Vec::new(), nodes }
}

/// Every node was turned down, by name in `rejected` or without a look in `unseen`.
pub fn no_node(
    nodes: usize,
    rejected: BTreeMap<String, Rejection>,
    unseen: Vec<String>,
    narrowed_by: Option<&'static str>,
) -> Unschedulable {
    let unseen_reason = narrowed_by.map(|plugin| format!("node(s) didn't satisfy plugin(s) [{plugin}]"));
    let reasons = rejected.values().flat_map(|r| r.reasons.iter().map(String::as_str));
    let unseen_reasons = unseen.iter().filter_map(|_| unseen_reason.as_deref());
    let text = histogram(reasons.chain(unseen_reasons));
    let message =
        if text.is_empty() { format!("0/{nodes} nodes are available:") } else { format!("0/{nodes} nodes are available: {text}.") };
    Unschedulable { message, rejected, before_nodes: None, unseen, nodes }
}
