//! What a kubelet may do, asked of a running server by node `n`.

use auth::User;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::authn::tests::Cluster;

async fn ask(cluster: &Cluster, method: &str, path: &str, body: Value) -> (u16, String) {
    let service = cluster.api.service_as(User::new("system:node:n", &["system:nodes"]));
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(Full::from(body.to_string()));
    let answer = service.oneshot(request.unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (code, answer["message"].as_str().unwrap_or("").to_owned())
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn cluster() -> (Cluster, String) {
    let cluster = Cluster::start(|_, _| {}).await;
    for node in ["n", "m"] {
        cluster.make("/api/v1/nodes", json!({"metadata": {"name": node}})).await;
    }
    cluster.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for (name, node) in [("mine", "n"), ("other", "m")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]}});
        cluster.make(PODS, pod).await;
    }
    let (_, node) = cluster.root("GET", "/api/v1/nodes/n", Value::Null).await;
    let uid = node["metadata"]["uid"].as_str().unwrap().to_owned();
    (cluster, uid)
}

fn mirror(uid: &str) -> Value {
    json!({"metadata": {"name": "static-n", "annotations": {"kubernetes.io/config.mirror": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": uid, "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn mirror_pods_refer_to_nothing_but_their_node() {
    let (cluster, uid) = cluster().await;
    let changed = |path: &str, value: Value| {
        let mut pod = mirror(&uid);
        let (holder, key) = path.rsplit_once('/').unwrap();
        let holder = pod.pointer_mut(holder).unwrap();
        match key.parse::<usize>() {
            Ok(_) => holder.as_array_mut().unwrap().push(value),
            Err(_) => holder[key] = value,
        }
        pod
    };
    let env = |source: &str| json!([{"name": "E", "valueFrom": {source: {"name": "x", "key": "k"}}}]);
    for (pod, text) in [
        (changed("/metadata/annotations", json!({})), "node \"n\" can only create mirror pods"),
        (changed("/spec/nodeName", json!("m")), "node \"n\" can only create pods with spec.nodeName set to itself"),
        (changed("/metadata/ownerReferences", json!([])), "can only create pods with an owner reference set to itself"),
        (changed("/metadata/ownerReferences/0/uid", json!("u")), "node n UID mismatch: expected u got"),
        (changed("/metadata/ownerReferences/0/controller", json!(false)), "a controller owner reference set to itself"),
        (changed("/metadata/ownerReferences/0/blockOwnerDeletion", json!(true)), "must not set blockOwnerDeletion"),
        (changed("/spec/containers/0/env", env("secretKeyRef")), "can not create pods that reference secrets"),
        (changed("/spec/containers/0/env", env("configMapKeyRef")), "can not create pods that reference configmaps"),
        (changed("/spec/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])), "reference persistentvolumeclaims"),
    ] {
        let (code, said) = ask(&cluster, "POST", PODS, pod).await;
        assert!(code == 403 && said.contains(text), "{code} {said} instead of {text}");
    }
    assert_eq!(ask(&cluster, "POST", PODS, mirror(&uid)).await.0, 201);
    cluster.api.shutdown().await;
}

#[tokio::test]
async fn pods_of_others_are_out_of_reach() {
    let (cluster, _) = cluster().await;
    let (mine, other) = (format!("{PODS}/mine"), format!("{PODS}/other"));
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(ask(&cluster, "PATCH", &format!("{mine}/status"), status.clone()).await.0, 200);
    for (method, path, body, text) in [
        ("GET", other.clone(), Value::Null, "no relationship found between node 'n' and this object"),
        ("DELETE", other.clone(), json!({}), "can only delete pods with spec.nodeName set to itself"),
        ("PATCH", format!("{other}/status"), status, "can only update pod status for pods with spec.nodeName set to itself"),
        ("PATCH", format!("{mine}/status"), json!({"metadata": {"labels": {"a": "b"}}}), "cannot update labels through pod status"),
        (
            "POST",
            format!("{other}/eviction"),
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}}),
            "can only evict pods",
        ),
        ("GET", PODS.to_owned(), Value::Null, "can only list/watch pods with spec.nodeName field selector"),
    ] {
        let (code, said) = ask(&cluster, method, &path, body).await;
        assert!(code == 403 && said.contains(text), "{method} {path}: {code} {said}");
    }
    assert_eq!(ask(&cluster, "GET", &format!("{PODS}?fieldSelector=spec.nodeName%3Dn"), Value::Null).await.0, 200);
    assert_eq!(ask(&cluster, "DELETE", &mine, json!({"gracePeriodSeconds": 0})).await.0, 200);
    cluster.api.shutdown().await;
}

#[tokio::test]
async fn a_node_changes_of_itself_what_it_may() {
    let (cluster, _) = cluster().await;
    let node = "/api/v1/nodes/n";
    for (path, body, text) in [
        (
            node,
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}),
            "is not allowed to modify labels: node-restriction.kubernetes.io/a",
        ),
        (node, json!({"metadata": {"labels": {"x.k8s.io/a": "b"}}}), "is not allowed to modify labels: x.k8s.io/a"),
        (node, json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}), "node \"n\" is not allowed to modify taints"),
        (
            node,
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}]}}),
            "is not allowed to modify ownerReferences",
        ),
        ("/api/v1/nodes/m", json!({"metadata": {"labels": {"a": "b"}}}), "node \"n\" is not allowed to modify node \"m\""),
    ] {
        let (code, said) = ask(&cluster, "PATCH", path, body).await;
        assert!(code == 403 && said.contains(text), "{code} {said}");
    }
    let fine = json!({"metadata": {"labels": {"a": "b", "kubernetes.io/arch": "amd64", "kubelet.kubernetes.io/x": "y"}}});
    assert_eq!(ask(&cluster, "PATCH", node, fine).await.0, 200);
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(ask(&cluster, "POST", leases, lease("m")).await.0, 403);
    assert_eq!(ask(&cluster, "POST", leases, lease("n")).await.0, 201);
    let slice = |node: &str| {
        json!({"metadata": {"name": format!("s-{node}")}, "spec": {"driver": "d.example.com", "nodeName": node,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
    };
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    assert_eq!(ask(&cluster, "POST", slices, slice("m")).await.0, 403);
    assert_eq!(ask(&cluster, "POST", slices, slice("n")).await.0, 201);
    cluster.make(slices, slice("m")).await;
    assert_eq!(ask(&cluster, "DELETE", &format!("{slices}/s-m"), json!({})).await.0, 403);
    assert_eq!(ask(&cluster, "DELETE", &format!("{slices}/s-n"), json!({})).await.0, 200);
    cluster.api.shutdown().await;
}

#[tokio::test]
async fn tokens_are_for_own_pods_and_the_audiences_they_name() {
    let (cluster, _) = cluster().await;
    let uid = async |pod: &str| cluster.root("GET", &format!("{PODS}/{pod}"), Value::Null).await.1["metadata"]["uid"].clone();
    let (mine, other) = (uid("mine").await, uid("other").await);
    let bound = |name: &str, uid: &Value, audiences: &[&str]| {
        let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
        json!({"spec": {"audiences": audiences, "boundObjectRef": reference}})
    };
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    for (body, text) in [
        (json!({"spec": {}}), "node requested token not bound to a pod"),
        (bound("mine", &json!(""), &[]), "node requested token with a pod binding without a uid"),
        (bound("mine", &other, &[]), "does not match the UID in record"),
        (bound("other", &other, &[]), "node requested token bound to a pod scheduled on a different node"),
        (bound("mine", &mine, &["a", "b"]), "node may only request 0 or 1 audiences"),
        (bound("mine", &mine, &["elsewhere"]), "audience \"elsewhere\" not found in pod spec volume"),
    ] {
        let (code, said) = ask(&cluster, "POST", path, body).await;
        assert!(code == 403 && said.contains(text), "{code} {said}");
    }
    assert_eq!(ask(&cluster, "POST", path, bound("mine", &mine, &["vault"])).await.0, 201);
    assert_eq!(ask(&cluster, "POST", path, bound("mine", &mine, &[])).await.0, 201, "its usual token volume");
    cluster.api.shutdown().await;
}
