//! What the user makes, as JSON. Names, sizes and images are arguments; nothing here is random.

use serde_json::{Value, json};

/// A place in the API, with the object's name.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub collection: String,
    pub name: String,
}

impl Place {
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }
}

pub(crate) fn core(namespace: &str, plural: &str, name: &str) -> Place {
    Place { collection: format!("/api/v1/namespaces/{namespace}/{plural}"), name: name.to_owned() }
}

pub(crate) fn cluster(plural: &str, name: &str) -> Place {
    Place { collection: format!("/api/v1/{plural}"), name: name.to_owned() }
}

pub(crate) fn group(group: &str, namespace: &str, plural: &str, name: &str) -> Place {
    Place { collection: format!("/apis/{group}/v1/namespaces/{namespace}/{plural}"), name: name.to_owned() }
}

pub(crate) fn apps(namespace: &str, plural: &str, name: &str) -> Place {
    group("apps", namespace, plural, name)
}

pub(crate) fn batch(namespace: &str, plural: &str, name: &str) -> Place {
    group("batch", namespace, plural, name)
}

fn template(app: &str, image: &str, cpu: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]}})
}

fn worker(image: &str) -> Value {
    json!({"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": image}]}})
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

pub(crate) fn deployment(name: &str, replicas: u64, image: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"replicas": replicas, "revisionHistoryLimit": 3,
        "selector": {"matchLabels": {"app": name}}, "template": template(name, image, cpu)}})
}

pub(crate) fn replica_set(name: &str, replicas: u64, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image, "50m")}})
}

pub(crate) fn replication_controller(name: &str, replicas: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"app": name}, "template": template(name, "app:v1", "50m")}})
}

pub(crate) fn stateful_set(name: &str, replicas: u64, image: &str, policy: &str, with_claims: bool) -> Value {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "sim", "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = if with_claims { json!([claim]) } else { json!([]) };
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "serviceName": name, "podManagementPolicy": policy,
        "selector": {"matchLabels": {"app": name}}, "template": template(name, image, "50m"), "volumeClaimTemplates": claims,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}})
}

pub(crate) fn daemon_set(name: &str, image: &str, surge: bool) -> Value {
    let rolling = if surge { json!({"maxSurge": 1, "maxUnavailable": 0}) } else { json!({"maxUnavailable": 1}) };
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "template": template(name, image, "20m"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}})
}

/// Completions of zero: as many as parallel ones, the work queue's way.
pub(crate) fn job(name: &str, completions: u64, parallelism: u64, image: &str, indexed: bool) -> Value {
    let mode = if indexed { "Indexed" } else { "NonIndexed" };
    json!({"metadata": {"name": name}, "spec": {"completions": completions, "parallelism": parallelism, "completionMode": mode,
        "backoffLimit": if image == "work:bad" { 2 } else { 1000 }, "template": worker(image)}})
}

pub(crate) fn cron_job(name: &str, policy: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 2,
        "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": worker("work:ok")}}}})
}

pub(crate) fn service(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})
}

pub(crate) fn budget(name: &str, app: &str, least: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": app}}}})
}

pub(crate) fn quota(name: &str, pods: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hard": {"pods": pods.to_string(), "services": "3", "persistentvolumeclaims": "4"}}})
}

pub(crate) fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "sim", "resources": {"requests": {"storage": "1Gi"}}}})
}

pub(crate) fn volume(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "sim", "hostPath": {"path": "/sim"}}})
}

pub(crate) fn config_map(name: &str, owner: Option<Value>) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>()}, "data": {"a": "b"}})
}
