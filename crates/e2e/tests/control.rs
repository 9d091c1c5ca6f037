//! What controllers do with what is written: garbage is collected, namespaces are emptied in order, quotas follow what there is.
//! The steps of upstream's conformance tests, with pods that run.
#![expect(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use e2e::{Space, eventually, is_root, shared};
use serde_json::{Value, json};

fn space(name: &str) -> Option<Space> {
    is_root().then(|| Space::new(shared().unwrap(), name).unwrap())
}

fn pod_spec() -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "skiff/hello"}]})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec()})
}

fn controller(name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"app": name}, "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec()}}})
}

fn workload(kind: &str, name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec()}}})
}

fn reference(owner: &Value) -> Value {
    json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]})
}

fn alive(pods: &[Value]) -> usize {
    pods.iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).count()
}

#[test]
fn dependents_are_deleted_in_the_background() {
    let Some(space) = space("gc-background") else { return };
    space.create("replicationcontrollers", &controller("rc", 2)).unwrap();
    space.create("apps/v1/deployments", &workload("Deployment", "web", 2)).unwrap();
    space.wait_count("pods", 4).unwrap();
    space.delete("replicationcontrollers/rc", "Background").unwrap();
    space.delete("apps/v1/deployments/web", "Background").unwrap();
    space.wait_count("apps/v1/replicasets", 0).unwrap();
    space.wait_count("pods", 0).unwrap();
}

#[test]
fn orphans_stay() {
    let Some(space) = space("gc-orphans") else { return };
    space.create("replicationcontrollers", &controller("rc", 10)).unwrap();
    space.create("apps/v1/deployments", &workload("Deployment", "web", 1)).unwrap();
    space.wait_count("pods", 11).unwrap();
    space.delete("replicationcontrollers/rc", "Orphan").unwrap();
    space.delete("apps/v1/deployments/web", "Orphan").unwrap();
    space.wait_count("replicationcontrollers", 0).unwrap();
    space.wait_count("apps/v1/deployments", 0).unwrap();
    // For as long as a collector that is wrong would need.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let pods = space.list("pods").unwrap();
    let of_rc: Vec<&Value> = pods.iter().filter(|p| p["metadata"]["labels"]["app"] == "rc").collect();
    assert!(of_rc.len() == 10 && of_rc.iter().all(|p| p["metadata"].get("ownerReferences").is_none()), "{of_rc:?}");
    let sets = space.list("apps/v1/replicasets").unwrap();
    assert!(sets.len() == 1 && sets[0]["metadata"].get("ownerReferences").is_none(), "{sets:?}");
    assert_eq!((pods.len(), alive(&pods)), (11, 11));
}

#[test]
fn an_owner_deleted_in_the_foreground_waits_for_its_pods() {
    let Some(space) = space("gc-foreground") else { return };
    space.create("replicationcontrollers", &controller("rc", 10)).unwrap();
    space.wait_count("pods", 10).unwrap();
    let left = space.delete("replicationcontrollers/rc", "Foreground").unwrap();
    assert_eq!(left["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{left}");
    assert!(left["metadata"]["deletionTimestamp"].is_string());
    eventually("the owner is gone, and no pod then", || {
        let owners = space.list("replicationcontrollers")?;
        ensure!(owners.is_empty(), "it is there");
        let pods = space.list("pods")?;
        assert!(pods.is_empty(), "the owner went before {} pods", pods.len());
        Ok(())
    })
    .unwrap();
}

#[test]
fn pods_with_another_owner_stay() {
    let Some(space) = space("gc-two-owners") else { return };
    space.create("replicationcontrollers", &controller("going", 10)).unwrap();
    let staying = space.create("replicationcontrollers", &controller("staying", 0)).unwrap();
    let pods = space.wait_count("pods", 10).unwrap();
    for pod in &pods[..5] {
        let mut owners = pod["metadata"]["ownerReferences"].clone();
        owners.as_array_mut().unwrap().push(reference(&staying));
        let name = pod["metadata"]["name"].as_str().unwrap();
        space.patch(&format!("pods/{name}"), &json!({"metadata": {"ownerReferences": owners}})).unwrap();
    }
    space.delete("replicationcontrollers/going", "Foreground").unwrap();
    let left = eventually("the other half is gone", || {
        let owners = space.list("replicationcontrollers")?;
        ensure!(owners.len() == 1, "the owner is there");
        let pods = space.list("pods")?;
        ensure!(pods.len() == 5, "{} pods are there", pods.len());
        Ok(pods)
    })
    .unwrap();
    assert_eq!(alive(&left), 5);
    assert!(left.iter().all(|p| p["metadata"]["ownerReferences"] == json!([reference(&staying)])), "{left:?}");
}

#[test]
fn a_circle_of_owners_is_collected() {
    let Some(space) = space("gc-circle") else { return };
    let made: Vec<Value> = (1..4).map(|n| space.create("pods", &pod(&format!("pod{n}"))).unwrap()).collect();
    for (name, owner) in [("pod1", 2), ("pod2", 0), ("pod3", 1)] {
        let mut reference = reference(&made[owner]);
        (reference["controller"], reference["blockOwnerDeletion"]) = (json!(true), json!(true));
        space.patch(&format!("pods/{name}"), &json!({"metadata": {"ownerReferences": [reference]}})).unwrap();
    }
    space.delete("pods/pod1", "Foreground").unwrap();
    space.wait_count("pods", 0).unwrap();
}

#[test]
fn a_deleted_namespace_takes_its_pods_and_services_along() {
    let Some(space) = space("ns-emptied") else { return };
    space.create("pods", &pod("p")).unwrap();
    space
        .create(
            "services",
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {
        "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 80}]}}),
        )
        .unwrap();
    space.wait_phase("p", "Running").unwrap();
    let path = "/api/v1/namespaces/ns-emptied";
    let ended = space.request("DELETE", path, None).unwrap();
    assert_eq!(ended["status"]["phase"], "Terminating", "{ended}");
    eventually("the namespace is gone", || match space.get(path) {
        Ok(found) => anyhow::bail!("{}", found["status"]),
        Err(_) => Ok(()),
    })
    .unwrap();
    let again = Space::new(space.cluster.clone(), "ns-emptied").unwrap();
    assert!(again.list("pods").unwrap().is_empty() && again.list("services").unwrap().is_empty());
}

#[test]
fn a_namespace_lets_its_pods_go_first() {
    let Some(space) = space("ns-ordered") else { return };
    let mut held = pod("p");
    held["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    space.create("pods", &held).unwrap();
    space.create("configmaps", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}})).unwrap();
    space.wait_phase("p", "Running").unwrap();
    space.request("DELETE", "/api/v1/namespaces/ns-ordered", None).unwrap();
    eventually("the pod is being deleted", || {
        let pod = space.read("pods/p")?;
        ensure!(pod["metadata"]["deletionTimestamp"].is_string() && pod["status"]["phase"] != "Running", "{pod}");
        Ok(())
    })
    .unwrap();
    eventually("the namespace says what it waits for", || {
        let found = space.get("/api/v1/namespaces/ns-ordered")?;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        ensure!(conditions.iter().any(|c| c["type"] == "NamespaceContentRemaining" && c["status"] == "True"), "{}", found["status"]);
        Ok(())
    })
    .unwrap();
    let map = space.read("configmaps/m").unwrap();
    assert!(map["metadata"]["deletionTimestamp"].is_null(), "{map}");
    space.patch("pods/p", &json!({"metadata": {"finalizers": null}})).unwrap();
    eventually("the namespace is gone", || match space.get("/api/v1/namespaces/ns-ordered") {
        Ok(found) => anyhow::bail!("{}", found["status"]),
        Err(_) => Ok(()),
    })
    .unwrap();
}

#[test]
fn the_root_certificate_is_in_every_namespace() {
    let Some(space) = space("root-ca") else { return };
    let whole = |what: &str| {
        eventually(what, || {
            let map = space.read("configmaps/kube-root-ca.crt")?;
            ensure!(map["data"]["ca.crt"].as_str().is_some_and(|t| t.starts_with("-----BEGIN CERTIFICATE")), "{map}");
            Ok(map)
        })
        .unwrap()
    };
    let made = whole("it is made");
    space.delete("configmaps/kube-root-ca.crt", "").unwrap();
    assert_ne!(whole("it is made again")["metadata"]["uid"], made["metadata"]["uid"]);
    space.patch("configmaps/kube-root-ca.crt", &json!({"data": {"ca.crt": ""}})).unwrap();
    assert_eq!(whole("it is put right")["data"], made["data"]);
}
