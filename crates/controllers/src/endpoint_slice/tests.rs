//! EndpointSlices and Endpoints of a Service in the model cluster.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::endpoints;
use crate::model::Model;

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "d", "name": "web", "labels": {"team": "x"}}, "spec": {
        "type": "ClusterIP", "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}, {"name": "raw", "port": 90, "protocol": "TCP"}]}})
}

fn pod(number: usize, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": format!("web-{number:03}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": format!("10.244.0.{number}"), "podIPs": [{"ip": format!("10.244.0.{number}")}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2023-11-14T22:13:20Z"}]}})
}

fn cluster(pods: usize) -> Model {
    let mut objects = vec![
        service(),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}}),
    ];
    objects.extend((1..=pods).map(|number| pod(number, true)));
    let mut model = Model::new(&objects);
    settle(&mut model);
    model
}

fn settle(model: &mut Model) {
    model.settle(&CONTROLLER, &Key::new("d", "web"));
    model.settle(&endpoints::CONTROLLER, &Key::new("d", "web"));
}

fn sizes(model: &Model) -> Vec<usize> {
    model.of_kind::<EndpointSlice>().iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect()
}

#[test]
fn a_ready_pod_is_an_endpoint() {
    let model = cluster(1);
    let slice = model.of_kind::<EndpointSlice>()[0];
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "x", "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "raw", "port": 90, "protocol": "TCP"}]));
    let uid = &model.get::<Pod>("d", "web-001")["metadata"]["uid"];
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.244.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1", "zone": "z1",
            "targetRef": {"kind": "Pod", "namespace": "d", "name": "web-001", "uid": uid}}])
    );
    assert_eq!(
        model.get::<Endpoints>("d", "web")["subsets"],
        json!([{"addresses": [{"ip": "10.244.0.1", "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": "d", "name": "web-001", "uid": uid}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "raw", "port": 90, "protocol": "TCP"}]}])
    );
}

#[test]
fn without_pods_there_is_one_empty_slice() {
    let mut model = cluster(0);
    assert_eq!(sizes(&model), [0]);
    assert!(model.of_kind::<EndpointSlice>()[0]["ports"].is_null());
    let new = Model::new(&[pod(1, false)]).get::<Pod>("d", "web-001").clone();
    model.objects.insert(("Pod".into(), "d".into(), "web-001".into()), new);
    settle(&mut model);
    assert_eq!(sizes(&model), [1]);
    assert_eq!(model.of_kind::<EndpointSlice>()[0]["endpoints"][0]["conditions"]["ready"], false);
    assert_eq!(model.get::<Endpoints>("d", "web")["subsets"][0]["notReadyAddresses"][0]["ip"], "10.244.0.1");
}

#[test]
fn slices_hold_a_hundred_and_change_little() {
    let mut model = cluster(230);
    let mut all = sizes(&model);
    all.sort_unstable();
    assert_eq!(all, [30, 100, 100]);
    model.log.clear();
    model.merge::<Pod>("d", "web-007", &json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    model.settle(&CONTROLLER, &Key::new("d", "web"));
    assert_eq!(model.log.len(), 1, "{:?}", model.log);
    for number in 1..=230 {
        model.objects.remove(&("Pod".to_owned(), "d".to_owned(), format!("web-{number:03}")));
    }
    settle(&mut model);
    assert_eq!(sizes(&model), [0]);
    assert!(model.get::<Endpoints>("d", "web")["subsets"].is_null());
}

#[test]
fn terminating_pods_serve_but_are_not_ready() {
    let mut model = cluster(1);
    model.merge::<Pod>("d", "web-001", &json!({"metadata": {"finalizers": ["x"], "deletionTimestamp": "2023-11-14T22:13:20Z"}}));
    settle(&mut model);
    let conditions = &model.of_kind::<EndpointSlice>()[0]["endpoints"][0]["conditions"];
    assert_eq!(*conditions, json!({"ready": false, "serving": true, "terminating": true}));
    assert!(model.get::<Endpoints>("d", "web")["subsets"].is_null());
}
