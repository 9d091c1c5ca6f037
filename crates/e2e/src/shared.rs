//! A cluster that the tests of one program share while they run, and a namespace of it for each.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{Cluster, eventually};

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The cluster that other tests use just now, or a new one. The last to let it go removes it.
pub fn shared() -> Result<Arc<Cluster>> {
    let mut held = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = held.upgrade() {
        return Ok(cluster);
    }
    let cluster = Arc::new(Cluster::up(1)?);
    *held = Arc::downgrade(&cluster);
    Ok(cluster)
}

/// A namespace of a shared cluster, ready for pods. What is in it is written and read as protobuf, but for patches.
pub struct Space {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl Deref for Space {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Space {
    pub fn new(cluster: Arc<Cluster>, name: &str) -> Result<Self> {
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.request("POST", "/api/v1/namespaces", Some(&space))?;
        let space = Self { cluster, name: name.to_owned() };
        eventually("the default ServiceAccount", || space.read("serviceaccounts/default"))?;
        Ok(space)
    }

    /// The path of a resource in this namespace: `pods`, `apps/v1/deployments`, `pods/x/log`.
    pub fn path(&self, resource: &str) -> String {
        const GROUPS: [&str; 3] = ["apps/v1/", "discovery.k8s.io/v1/", "batch/v1/"];
        match GROUPS.iter().find_map(|group| Some((group, resource.strip_prefix(group)?))) {
            Some((group, rest)) => format!("/apis/{group}namespaces/{}/{rest}", self.name),
            None => format!("/api/v1/namespaces/{}/{resource}", self.name),
        }
    }

    pub fn create(&self, resource: &str, object: &Value) -> Result<Value> {
        self.cluster.typed("POST", &self.path(resource), Some(object))
    }

    pub fn read(&self, resource: &str) -> Result<Value> {
        self.cluster.typed("GET", &self.path(resource), None)
    }

    pub fn list(&self, resource: &str) -> Result<Vec<Value>> {
        let list = self.read(resource)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub fn patch(&self, resource: &str, patch: &Value) -> Result<Value> {
        self.cluster.request("PATCH", &self.path(resource), Some(patch))
    }

    /// Deletes with a propagation policy; empty: the default.
    pub fn delete(&self, resource: &str, policy: &str) -> Result<Value> {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if !policy.is_empty() {
            options["propagationPolicy"] = json!(policy);
        }
        self.cluster.typed("DELETE", &self.path(resource), Some(&options))
    }

    /// Waits for so many objects.
    pub fn wait_count(&self, resource: &str, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} {resource}"), || {
            let found = self.list(resource)?;
            ensure!(found.len() == count, "there are {}", found.len());
            Ok(found)
        })
    }

    pub fn wait_phase(&self, pod: &str, phase: &str) -> Result<Value> {
        eventually(&format!("pod {pod} is {phase}"), || {
            let found = self.read(&format!("pods/{pod}"))?;
            ensure!(found["status"]["phase"] == phase, "{}", found["status"]);
            Ok(found)
        })
    }
}
