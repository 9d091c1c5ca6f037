//! Which nodes a DaemonSet's pods belong on, and how a pod is tied to its node. Upstream's `NodeShouldRunDaemonPod` and
//! `AddOrUpdateDaemonPodTolerations`.

use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::taint_eviction::tolerates;
use crate::{meta, pods, selector};

const NAME_FIELD: &str = "metadata.name";

/// Whether a pod should be made there, and whether one that is there may stay.
pub fn should_run(spec: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let Some(pod) = spec.template.spec.as_ref() else { return (false, false) };
    let named = pod.node_name.as_deref().is_none_or(|name| name.is_empty() || name == meta::name(node));
    if !named || !fits(pod, node) {
        return (false, false);
    }
    let mut tolerations = pod.tolerations.clone().unwrap_or_default();
    tolerations.extend(own_tolerations(pod));
    let tolerated = |effect: &str| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter(|taint| taint.effect == effect);
        taints.into_iter().all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    };
    let stays = tolerated("NoExecute");
    (stays && tolerated("NoSchedule"), stays)
}

fn fits(pod: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    if !pod.node_selector.as_ref().is_none_or(|wanted| selector::has_all(wanted, labels)) {
        return false;
    }
    let required = pod
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// A term without requirements matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = Some(meta::name(node));
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|one| requirement_matches(one, meta::label(node, &one.key)))
        && fields.iter().all(|one| one.key == NAME_FIELD && requirement_matches(one, name))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || Some(value?.parse::<i64>().ok()?.cmp(&values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared() == Some(std::cmp::Ordering::Greater),
        "Lt" => compared() == Some(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// What every daemon pod puts up with.
fn own_tolerations(pod: &PodSpec) -> Vec<Toleration> {
    let one = |key: &str, effect: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    let mut all = vec![one("not-ready", "NoExecute"), one("unreachable", "NoExecute")];
    all.extend(["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"].map(|key| one(key, "NoSchedule")));
    if pod.host_network == Some(true) {
        all.push(one("network-unavailable", "NoSchedule"));
    }
    all
}

/// Ties a pod to a node by its name, for the scheduler to bind; other required node affinity is replaced, as it was
/// looked at already.
pub fn pin(pod: &mut Pod, node: &str) {
    let Some(spec) = pod.spec.as_mut() else { return };
    let own = own_tolerations(spec);
    let tolerations = spec.tolerations.get_or_insert_default();
    tolerations.extend(own.into_iter().filter(|new| !tolerations.contains(new)).collect::<Vec<_>>());
    let requirement =
        NodeSelectorRequirement { key: NAME_FIELD.to_owned(), operator: "In".to_owned(), values: Some(vec![node.to_owned()]) };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default).node_affinity.get_or_insert_with(NodeAffinity::default);
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
}

/// Where a pod is, or is to be.
pub fn node_of(pod: &Pod) -> String {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let fields =
        required.into_iter().flat_map(|required| &required.node_selector_terms).flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NAME_FIELD).filter_map(|field| field.values.as_ref()?.first().cloned());
    names.next().unwrap_or_default()
}
