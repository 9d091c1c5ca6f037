//! DaemonSets in the model cluster.

use serde_json::{Value, json};

use super::*;
use crate::model::{Model, pod_status};

fn node(name: &str, labels: &Value, taints: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})
}

fn cluster() -> Model {
    let linux = json!({"os": "linux"});
    Model::new(&[
        node("a", &linux, &json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}])),
        node("b", &linux, &json!([])),
        node("c", &linux, &json!([{"key": "mine", "effect": "NoSchedule"}])),
        node("d", &json!({}), &json!([])),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "k", "name": "ds"}, "spec": {
            "selector": {"matchLabels": {"app": "ds"}}, "template": {"metadata": {"labels": {"app": "ds"}},
            "spec": {"nodeSelector": {"os": "linux"}, "containers": [{"name": "c", "image": "v1"}]}}}}),
    ])
}

fn key() -> Key {
    Key::new("k", "ds")
}

fn places(model: &Model) -> Vec<String> {
    let pods = model.of_kind::<Pod>().into_iter().map(|pod| serde_json::from_value(pod.clone()).unwrap());
    let mut all: Vec<String> = pods.map(|pod: Pod| nodes::node_of(&pod)).collect();
    all.sort();
    all
}

/// Starts all pods.
fn start(model: &mut Model) {
    let names: Vec<String> = model.of_kind::<Pod>().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let ready = pod_status("Running", true, model.now);
    names.iter().for_each(|name| model.merge::<Pod>("k", name, &ready));
}

#[test]
fn one_pod_on_each_fitting_node() {
    let mut model = cluster();
    model.settle(&CONTROLLER, &key());
    assert_eq!(places(&model), ["a", "b"]);
    start(&mut model);
    model.settle(&CONTROLLER, &key());
    let status = &model.get::<DaemonSet>("k", "ds")["status"];
    assert_eq!(
        (&status["desiredNumberScheduled"], &status["numberAvailable"], &status["updatedNumberScheduled"]),
        (&json!(2), &json!(2), &json!(2))
    );
    // A node that fits now, and one that no longer does.
    model.merge::<Node>("", "c", &json!({"spec": {"taints": null}}));
    model.merge::<Node>("", "b", &json!({"metadata": {"labels": {"os": null}}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(places(&model), ["a", "c"]);
}

#[test]
fn failed_pods_are_replaced_and_templates_roll_one_by_one() {
    let mut model = cluster();
    model.settle(&CONTROLLER, &key());
    start(&mut model);
    let first = model.of_kind::<Pod>()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    model.merge::<Pod>("k", &first, &json!({"status": {"phase": "Failed"}}));
    model.settle(&CONTROLLER, &key());
    assert!(model.of_kind::<Pod>().iter().all(|pod| pod["metadata"]["name"] != first.as_str()));
    assert_eq!(places(&model), ["a", "b"]);
    start(&mut model);
    model.settle(&CONTROLLER, &key());
    model.merge::<DaemonSet>("k", "ds", &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}));
    for done in 1..=2 {
        model.settle(&CONTROLLER, &key());
        let ready = model.of_kind::<Pod>().iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert_eq!(ready, 1, "only one at a time");
        start(&mut model);
        let new = model.of_kind::<Pod>().iter().filter(|pod| pod["spec"]["containers"][0]["image"] == "v2").count();
        assert_eq!(new, done);
    }
    model.settle(&CONTROLLER, &key());
    assert_eq!(model.get::<DaemonSet>("k", "ds")["status"]["updatedNumberScheduled"], 2);
}

#[test]
fn pods_that_fail_again_and_again_are_replaced_later_each_time() {
    let mut model = cluster();
    model.settle(&CONTROLLER, &key());
    let fail_on_a = |model: &mut Model| {
        let pod = model.of_kind::<Pod>().into_iter().find(|pod| pod["status"]["phase"].is_null()).unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        model.merge::<Pod>("k", &name, &json!({"status": {"phase": "Failed"}}));
        name
    };
    let first = model.of_kind::<Pod>()[1]["metadata"]["name"].as_str().unwrap().to_owned();
    let ready = pod_status("Running", true, model.now);
    model.merge::<Pod>("k", &first, &ready);
    for wait in [0, 1, 2, 4] {
        let name = fail_on_a(&mut model);
        let has = |model: &Model| model.objects.contains_key(&("Pod".into(), "k".into(), name.clone()));
        if wait > 0 {
            model.pass(wait - 1);
            model.settle(&CONTROLLER, &key());
            assert!(has(&model), "not before {wait} s");
            model.pass(1);
        }
        model.settle(&CONTROLLER, &key());
        assert!(!has(&model), "after {wait} s");
    }
}

#[test]
fn surge_starts_the_new_pod_beside_the_old() {
    let mut model = cluster();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    model.merge::<DaemonSet>("k", "ds", &json!({"spec": {"updateStrategy": strategy}}));
    model.settle(&CONTROLLER, &key());
    start(&mut model);
    model.merge::<DaemonSet>("k", "ds", &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}));
    for total in [3, 3, 2] {
        model.settle(&CONTROLLER, &key());
        assert_eq!(model.of_kind::<Pod>().len(), total);
        let now = model.now;
        let serving = model.of_kind::<Pod>().iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        assert_eq!(serving, 2, "nothing goes before its successor serves");
        start(&mut model);
        assert_eq!(model.now, now);
    }
    assert!(model.of_kind::<Pod>().iter().all(|pod| pod["spec"]["containers"][0]["image"] == "v2"));
    assert_eq!(model.of_kind::<k8s_openapi::api::apps::v1::ControllerRevision>().len(), 2);
}
