//! Tests of an informer's state without a server.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn pod(name: &str, revision: u64, node: &str, owner: Option<&str>) -> Pod {
    let owners: Vec<_> = owner
        .iter()
        .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"namespace": "n", "name": name, "resourceVersion": revision.to_string(), "ownerReferences": owners,
            "managedFields": [{"manager": "m"}]},
        "spec": {"nodeName": node, "containers": []},
    }))
    .unwrap()
}

fn shared() -> Shared<Pod> {
    let shared = Shared::new("/api/v1/pods".into());
    shared.write(|state| state.add_index("node", |pod: &Pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect()));
    shared
}

fn names(pods: Vec<Arc<Pod>>) -> Vec<String> {
    pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
}

#[test]
fn indexes_follow_changes() {
    let shared = shared();
    shared.replace(vec![pod("a", 1, "n1", Some("u")), pod("b", 2, "n1", None)], 5, 0);
    assert_eq!(names(shared.read(|state| state.by_index("node", "n1"))), ["a", "b"]);
    assert_eq!(names(shared.read(|state| state.by_index(index_name::CONTROLLER, "u"))), ["a"]);
    assert_eq!(names(shared.read(|state| state.by_index(index_name::ORPHAN, "n"))), ["b"]);
    shared.apply(pod("a", 6, "n2", None));
    assert_eq!(names(shared.read(|state| state.by_index("node", "n1"))), ["b"]);
    assert_eq!(names(shared.read(|state| state.by_index(index_name::ORPHAN, "n"))), ["a", "b"]);
    shared.delete(pod("b", 7, "n1", None));
    assert_eq!(names(shared.read(|state| state.in_namespace("n"))), ["a"]);
    assert_eq!(names(shared.read(|state| state.in_namespace("m"))), Vec::<String>::new());
    assert_eq!(shared.progress.get().revision, 7);
    assert!(shared.read(|state| state.objects.values().all(|pod| pod.metadata.managed_fields.is_none())));
}

#[test]
fn changes_coalesce_and_keep_the_last_state() {
    let shared = shared();
    shared.replace(vec![pod("a", 1, "", None)], 1, 0);
    let mut subscription = shared.subscribe();
    let first = subscription.try_next().unwrap();
    assert!(first.old.is_none() && first.new.is_some());
    for revision in 2..10 {
        shared.apply(pod("a", revision, "", None));
    }
    shared.apply(pod("b", 10, "", None));
    shared.delete(pod("b", 11, "", None));
    let a = subscription.try_next().unwrap();
    assert_eq!((revision_of(&*a.old.unwrap()), revision_of(&*a.new.unwrap())), (1, 9));
    let b = subscription.try_next().unwrap();
    assert_eq!((revision_of(&*b.old.unwrap()), b.new.is_none()), (11, true));
    assert!(subscription.try_next().is_none());
}

#[test]
fn a_list_tells_what_is_gone_and_repeats_nothing() {
    let shared = shared();
    shared.replace(vec![pod("a", 1, "", None), pod("b", 2, "", None)], 2, 0);
    let mut subscription = shared.subscribe();
    while subscription.try_next().is_some() {}
    shared.replace(vec![pod("b", 2, "", None), pod("c", 4, "", None)], 4, 0);
    let changed: Vec<_> =
        std::iter::from_fn(|| subscription.try_next()).map(|change| (change.key.to_string(), change.new.is_some())).collect();
    assert_eq!(changed, [("n/c".to_owned(), true), ("n/a".to_owned(), false)]);
}
