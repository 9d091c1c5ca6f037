//! The Node authorizer: what a kubelet may do to objects that belong to its own node (upstream's
//! `plugin/pkg/auth/authorizer/node`). What belongs to it is in [`graph`]; the API server asks here before RBAC.

mod graph;

use crate::attributes::{Attributes, Decision};
use crate::rbac::Rule;
pub use graph::{Graph, pod_references};

const NODE_LEASES: &str = "kube-node-lease";

/// What the Node authorizer says. `rules` are those of `system:node`, granted to every node beyond the graph.
pub fn authorize(graph: &Graph, rules: &[Rule], asked: &Attributes) -> Decision {
    let Some(node) = asked.user.as_node() else { return Decision::NoOpinion(String::new()) };
    if asked.is_resource
        && let Some(decision) = by_resource(graph, node, asked)
    {
        return decision;
    }
    if rules.iter().any(|r| r.allows(asked)) { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
}

/// Resources of which a node sees its own part; `None` for all others.
fn by_resource(graph: &Graph, node: &str, asked: &Attributes) -> Option<Decision> {
    let verb = asked.verb.as_str();
    Some(match (asked.group.as_str(), asked.resource.as_str(), asked.subresource.as_str()) {
        ("", "secrets" | "configmaps", _) => by_name(graph, node, asked),
        ("", "persistentvolumeclaims", "status") => match verb {
            "update" | "patch" => related(graph, node, asked),
            _ => refused("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes", _) => get(graph, node, asked),
        ("resource.k8s.io", "resourceclaims", _) | ("storage.k8s.io", "volumeattachments", _) => get(graph, node, asked),
        // Credential providers of the kubelet read the accounts of its pods.
        ("", "serviceaccounts", "") if verb == "get" => related(graph, node, asked),
        ("", "serviceaccounts", subresource) => match (verb, subresource) {
            ("create", "token") if !asked.name.is_empty() => related(graph, node, asked),
            ("create", _) if !asked.name.is_empty() => refused("can only create token subresource of serviceaccount"),
            _ => refused("can only create tokens for individual service accounts"),
        },
        ("coordination.k8s.io", "leases", _) => lease(node, asked),
        ("storage.k8s.io", "csinodes", _) => csi_node(node, asked),
        ("resource.k8s.io", "resourceslices", _) => slice(graph, node, asked),
        ("", "nodes", _) => own_node(node, asked),
        ("", "pods", _) => pod(graph, node, asked),
        _ => return None,
    })
}

fn allowed() -> Decision {
    Decision::Allow(String::new())
}

fn refused(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}

fn related(graph: &Graph, node: &str, asked: &Attributes) -> Decision {
    if asked.name.is_empty() {
        return refused("No Object name found");
    }
    if graph.reaches(node, asked) { allowed() } else { refused(format!("no relationship found between node '{node}' and this object")) }
}

fn get(graph: &Graph, node: &str, asked: &Attributes) -> Decision {
    if asked.verb != "get" {
        return refused("can only get individual resources of this type");
    }
    if !asked.subresource.is_empty() {
        return refused("cannot get subresource");
    }
    related(graph, node, asked)
}

/// Reads of one object, also as a list or watch of its name.
fn by_name(graph: &Graph, node: &str, asked: &Attributes) -> Decision {
    if !asked.is_read_only() {
        return refused("can only read resources of this type");
    }
    if !asked.subresource.is_empty() {
        return refused("cannot read subresource");
    }
    if asked.namespace.is_empty() {
        return refused("can only read namespaced object of this type");
    }
    related(graph, node, asked)
}

fn lease(node: &str, asked: &Attributes) -> Decision {
    if !matches!(asked.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refused("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != NODE_LEASES {
        return refused(format!("can only access leases in the \"{NODE_LEASES}\" system namespace"));
    }
    // The name of an object being created is in its body, which NodeRestriction checks.
    if asked.verb != "create" && asked.name != node {
        return refused("can only access node lease with the same name as the requesting node");
    }
    allowed()
}

fn csi_node(node: &str, asked: &Attributes) -> Decision {
    if !matches!(asked.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return refused("can only get, create, update, patch, or delete a CSINode");
    }
    if !asked.subresource.is_empty() {
        return refused("cannot authorize CSINode subresources");
    }
    if asked.verb != "create" && asked.name != node {
        return refused("can only access CSINode with the same name as the requesting node");
    }
    allowed()
}

fn slice(graph: &Graph, node: &str, asked: &Attributes) -> Decision {
    if !asked.subresource.is_empty() {
        return refused("cannot authorize ResourceSlice subresources");
    }
    match asked.verb.as_str() {
        // NodeRestriction sees whose it is.
        "create" => allowed(),
        "get" | "update" | "patch" | "delete" => related(graph, node, asked),
        "watch" | "list" | "deletecollection" if asked.selects_field("nodeName", node) => allowed(),
        "watch" | "list" | "deletecollection" => {
            refused("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => refused(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn own_node(node: &str, asked: &Attributes) -> Decision {
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        // Whose it is NodeRestriction sees.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allowed(),
        ("", "get" | "list" | "watch") => match asked.name.as_str() {
            name if name == node => allowed(),
            "" => refused(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => refused(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => refused(""),
    }
}

fn pod(graph: &Graph, node: &str, asked: &Attributes) -> Decision {
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        ("", "get") => get(graph, node, asked),
        ("", "list" | "watch") if asked.selects_field("spec.nodeName", node) => allowed(),
        ("", "list" | "watch") if !asked.name.is_empty() => related(graph, node, asked),
        ("", "list" | "watch") => refused("can only list/watch pods with spec.nodeName field selector"),
        // Mirror pods, and its own pods' ends: NodeRestriction sees which.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allowed(),
        _ => refused(""),
    }
}

#[cfg(test)]
mod tests;
