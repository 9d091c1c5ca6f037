//! A ResourceQuota follows the life of what it counts, and refuses what is too much. The steps of upstream's conformance tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use e2e::{Space, eventually, is_root, refused, shared};
use serde_json::{Value, json};

/// A namespace with quotas: name, hard limits, scopes.
fn space(name: &str, quotas: &[(&str, Value, &[&str])]) -> Option<Space> {
    if !is_root() {
        return None;
    }
    let space = Space::new(shared().unwrap(), name).unwrap();
    for (quota, hard, scopes) in quotas {
        let mut object = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": quota}, "spec": {"hard": hard}});
        if !scopes.is_empty() {
            object["spec"]["scopes"] = json!(scopes);
        }
        space.create("resourcequotas", &object).unwrap();
        let zero: Value = hard.as_object().unwrap().keys().map(|k| (k.clone(), json!("0"))).collect::<serde_json::Map<_, _>>().into();
        let counted_before = hard.as_object().unwrap().contains_key("configmaps");
        if !counted_before {
            used(&space, quota, &zero);
        }
    }
    Some(space)
}

/// Waits until a quota's status tells this much to be used.
fn used(space: &Space, quota: &str, want: &Value) {
    eventually(&format!("{want} of {quota} is used"), || {
        let found = space.read(&format!("resourcequotas/{quota}"))?;
        ensure!(found["status"]["hard"] == found["spec"]["hard"], "{}", found["status"]);
        for (key, amount) in want.as_object().into_iter().flatten() {
            ensure!(found["status"]["used"][key] == *amount, "{key}: {}", found["status"]["used"]);
        }
        Ok(())
    })
    .unwrap();
}

/// A pod that is never run: it is only counted.
fn pod(name: &str, requests: &Value, limits: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeSelector": {"none": "such"},
        "containers": [{"name": "c", "image": "skiff/hello", "resources": {"requests": requests, "limits": limits}}]}})
}

fn delete_now(space: &Space, pod: &str) {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    space.request("DELETE", &space.path(&format!("pods/{pod}")), Some(&options)).unwrap();
}

#[test]
fn maps_secrets_and_services_are_counted() {
    let hard = json!({"services": "10", "services.nodeports": "1", "services.loadbalancers": "1", "secrets": "10", "resourcequotas": "1"});
    let Some(space) = space("quota-objects", &[]) else { return };
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    space.create("resourcequotas", &quota).unwrap();
    used(&space, "q", &json!({"services": "0", "secrets": "0", "resourcequotas": "1"}));
    let text =
        refused(space.create(
            "resourcequotas",
            &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "r"}, "spec": {"hard": {}}}),
        ));
    assert!(text.contains("exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1"), "{text}");

    space.create("secrets", &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})).unwrap();
    used(&space, "q", &json!({"secrets": "1"}));
    space.delete("secrets/s", "").unwrap();
    used(&space, "q", &json!({"secrets": "0"}));

    let service = |name: &str, kind: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    space.create("services", &service("cluster", "ClusterIP")).unwrap();
    space.create("services", &service("node", "NodePort")).unwrap();
    let text = refused(space.create("services", &service("balanced", "LoadBalancer")));
    assert!(text.contains("exceeded quota"), "{text}");
    used(&space, "q", &json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"}));
    space.delete("services/cluster", "").unwrap();
    space.delete("services/node", "").unwrap();
    used(&space, "q", &json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"}));
}

#[test]
fn config_maps_are_counted() {
    let Some(space) = space("quota-maps", &[]) else { return };
    eventually("the root certificate", || space.read("configmaps/kube-root-ca.crt")).unwrap();
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "3"}}});
    space.create("resourcequotas", &quota).unwrap();
    used(&space, "q", &json!({"configmaps": "1"}));
    space.create("configmaps", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}})).unwrap();
    used(&space, "q", &json!({"configmaps": "2"}));
    space.delete("configmaps/m", "").unwrap();
    used(&space, "q", &json!({"configmaps": "1"}));
}

#[test]
fn controllers_are_counted() {
    let hard = json!({"replicationcontrollers": "10", "count/replicasets.apps": "5"});
    let Some(space) = space("quota-controllers", &[("q", hard, &[])]) else { return };
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "skiff/hello"}]}});
    let rc = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"},
        "spec": {"replicas": 0, "selector": {"app": "x"}, "template": template}});
    let rs = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template}});
    space.create("replicationcontrollers", &rc).unwrap();
    space.create("apps/v1/replicasets", &rs).unwrap();
    used(&space, "q", &json!({"replicationcontrollers": "1", "count/replicasets.apps": "1"}));
    space.delete("replicationcontrollers/rc", "").unwrap();
    space.delete("apps/v1/replicasets/rs", "").unwrap();
    used(&space, "q", &json!({"replicationcontrollers": "0", "count/replicasets.apps": "0"}));
}

#[test]
fn a_pods_requests_are_counted_and_limited() {
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi", "requests.example.com/dongle": "3"});
    let Some(space) = space("quota-pods", &[("q", hard, &[])]) else { return };
    let dongles = |n: &str| json!({"example.com/dongle": n});
    let requests = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    space.create("pods", &pod("fits", &requests, &dongles("2"))).unwrap();
    let with = json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "requests.example.com/dongle": "2"});
    used(&space, "q", &with);
    let more = json!({"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"});
    let text = refused(space.create("pods", &pod("too-big", &more, &json!({}))));
    assert!(text.contains("exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1"), "{text}");
    let more = json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "2"});
    let text = refused(space.create("pods", &pod("too-many", &more, &dongles("2"))));
    assert!(text.contains("exceeded quota: q, requested: requests.example.com/dongle=2"), "{text}");
    let patch = json!({"spec": {"containers": [{"name": "c", "image": "skiff/hello", "resources": {"requests": {"cpu": "100m"}}}]}});
    let text = refused(space.patch("pods/fits", &patch));
    assert!(text.contains("pod updates may not change fields other than"), "{text}");
    used(&space, "q", &with);
    delete_now(&space, "fits");
    used(&space, "q", &json!({"pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0", "requests.example.com/dongle": "0"}));
}

#[test]
fn scopes_tell_pods_without_requests_from_others() {
    let all = json!({"pods": "5"});
    let quotas: [(&str, Value, &[&str]); 2] = [("best", all.clone(), &["BestEffort"]), ("other", all, &["NotBestEffort"])];
    let Some(space) = space("quota-best-effort", &quotas) else { return };
    let count = |best: &str, other: &str| {
        used(&space, "best", &json!({"pods": best}));
        used(&space, "other", &json!({"pods": other}));
    };
    space.create("pods", &pod("free", &json!({}), &json!({}))).unwrap();
    count("1", "0");
    delete_now(&space, "free");
    count("0", "0");
    space.create("pods", &pod("bound", &json!({"cpu": "500m", "memory": "200Mi"}), &json!({"cpu": "1", "memory": "400Mi"}))).unwrap();
    count("0", "1");
    delete_now(&space, "bound");
    count("0", "0");
}

#[test]
fn scopes_tell_pods_that_end_from_others() {
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"});
    let quotas: [(&str, Value, &[&str]); 2] = [("ending", hard.clone(), &["Terminating"]), ("lasting", hard, &["NotTerminating"])];
    let Some(space) = space("quota-terminating", &quotas) else { return };
    let none = json!({"pods": "0", "requests.cpu": "0", "requests.memory": "0", "limits.cpu": "0", "limits.memory": "0"});
    let one = json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1", "limits.memory": "400Mi"});
    let lasting = pod("lasting", &json!({"cpu": "500m", "memory": "200Mi"}), &json!({"cpu": "1", "memory": "400Mi"}));
    space.create("pods", &lasting).unwrap();
    used(&space, "lasting", &one);
    used(&space, "ending", &none);
    delete_now(&space, "lasting");
    used(&space, "lasting", &none);
    let mut ending = lasting;
    (ending["metadata"]["name"], ending["spec"]["activeDeadlineSeconds"]) = (json!("ending"), json!(3600));
    space.create("pods", &ending).unwrap();
    used(&space, "ending", &one);
    used(&space, "lasting", &none);
    delete_now(&space, "ending");
    used(&space, "ending", &none);
}

#[test]
fn the_status_is_there_promptly() {
    let Some(space) = space("quota-prompt", &[("q", json!({"pods": "5", "services": "10", "count/replicasets.apps": "5"}), &[])]) else {
        return;
    };
    let found = space.read("resourcequotas/q").unwrap();
    assert_eq!(found["status"]["hard"], found["spec"]["hard"]);
    assert_eq!(found["status"]["used"], json!({"pods": "0", "services": "0", "count/replicasets.apps": "0"}));
}
