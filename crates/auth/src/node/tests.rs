//! Decisions over small graphs.

use serde_json::json;

use super::*;
use crate::user::User;

fn ask(node: &str, resource: &str, name: &str) -> Attributes {
    Attributes {
        user: User::new(format!("system:node:{node}"), &["system:nodes"]),
        verb: "get".into(),
        resource: resource.into(),
        namespace: "ns".into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

#[test]
fn a_node_reads_what_its_pods_need_and_no_longer_than_they_live() {
    let mut graph = Graph::default();
    graph.set_pod(&json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n1", "containers": [],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}}]}}));
    graph.set_volume(&json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "ns", "name": "claim"}}}));
    let allowed = |graph: &Graph, a: &Attributes| matches!(authorize(graph, &[], a), Decision::Allow(_));
    assert!(allowed(&graph, &ask("n1", "secrets", "s")));
    assert!(allowed(&graph, &ask("n1", "persistentvolumes", "pv")));
    assert!(!allowed(&graph, &ask("n2", "secrets", "s")));
    assert!(!allowed(&graph, &ask("n1", "secrets", "other")));
    graph.remove_pod("ns", "p");
    assert!(!allowed(&graph, &ask("n1", "secrets", "s")));
}

#[test]
fn lists_need_the_selector_that_names_the_node() {
    let mut graph = Graph::default();
    graph.set_pod(&json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n1", "containers": []}}));
    graph.set_slice(&json!({"metadata": {"name": "s"}, "spec": {"nodeName": "n1"}}));
    let selector = |text: &str| machinery::fieldselector::parse(text).unwrap().terms;
    let why = |a: &Attributes| match authorize(&graph, &[], a) {
        Decision::Allow(_) => "allowed".to_owned(),
        Decision::NoOpinion(why) | Decision::Deny(why) => why,
    };
    let list = |resource: &str, group: &str, text: &str| Attributes {
        verb: "list".into(),
        group: group.into(),
        field_selector: selector(text),
        ..ask("n1", resource, "")
    };
    assert_eq!(why(&list("pods", "", "")), "can only list/watch pods with spec.nodeName field selector");
    assert_eq!(why(&list("pods", "", "spec.nodeName=n1,status.phase!=Failed")), "allowed");
    assert_eq!(why(&list("pods", "", "spec.nodeName!=n1")), "can only list/watch pods with spec.nodeName field selector");
    assert_eq!(why(&list("pods", "", "spec.nodeName=n2")), "can only list/watch pods with spec.nodeName field selector");
    assert_eq!(why(&list("resourceslices", "resource.k8s.io", "nodeName=n1")), "allowed");
    assert_eq!(why(&ask("n1", "pods", "p")), "allowed");
    assert_eq!(why(&ask("n2", "pods", "p")), "no relationship found between node 'n2' and this object");
    assert_eq!(why(&ask("n1", "nodes", "n2")), "node 'n1' cannot read 'n2', only its own Node object");
    assert_eq!(why(&Attributes { verb: "list".into(), ..ask("n1", "configmaps", "") }), "No Object name found");
    assert_eq!(why(&Attributes { verb: "delete".into(), ..ask("n1", "secrets", "s") }), "can only read resources of this type");
    let slice = Attributes { group: "resource.k8s.io".into(), ..ask("n2", "resourceslices", "s") };
    assert_eq!(why(&slice), "no relationship found between node 'n2' and this object");
}

#[test]
fn a_mirror_pod_grants_nothing_but_itself() {
    let mut graph = Graph::default();
    graph.set_pod(&json!({"metadata": {"name": "p", "namespace": "ns", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}}));
    let decide = |a: &Attributes| matches!(authorize(&graph, &[], a), Decision::Allow(_));
    assert!(decide(&ask("n1", "pods", "p")));
    assert!(!decide(&ask("n1", "secrets", "s")));
}
