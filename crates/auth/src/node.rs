//! The Node authorizer: which objects a kubelet may read, by a graph from what they belong to up to its node (upstream's
//! `plugin/pkg/auth/authorizer/node`). The API server feeds it pods, volumes and attachments.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::attributes::{Attributes, Decision};

/// What a pod needs: kind (`secrets`, `configmaps`, ...), namespace, name.
type Target = (&'static str, String, String);

/// From objects to the nodes that may see them. Kept current pod by pod.
#[derive(Debug, Default)]
pub struct Graph {
    /// pod (namespace, name) -> (node, targets)
    pods: HashMap<(String, String), (String, HashSet<Target>)>,
    /// target -> node -> how many pods of it need it
    users: HashMap<Target, HashMap<String, usize>>,
    /// (PVC namespace, name) -> the volume bound to it
    volumes: HashMap<(String, String), String>,
    /// volume -> the secret it names
    volume_secrets: HashMap<String, Vec<(String, String)>>,
    /// attachment -> node
    attachments: HashMap<String, String>,
}

impl Graph {
    pub fn set_pod(&mut self, pod: &Value) {
        let key = (machinery::object::namespace(pod).to_owned(), machinery::object::name(pod).to_owned());
        self.remove_pod(&key.0, &key.1);
        let node = machinery::object::str_at(pod, "spec.nodeName");
        if node.is_empty() {
            return;
        }
        let targets = targets_of(pod, &key.0);
        for target in &targets {
            *self.users.entry(target.clone()).or_default().entry(node.to_owned()).or_default() += 1;
        }
        self.pods.insert(key, (node.to_owned(), targets));
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some((node, targets)) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        for target in targets {
            if let Some(nodes) = self.users.get_mut(&target) {
                if let Some(count) = nodes.get_mut(&node) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&node);
                    }
                }
                if nodes.is_empty() {
                    self.users.remove(&target);
                }
            }
        }
    }

    pub fn set_volume(&mut self, volume: &Value) {
        let name = machinery::object::name(volume).to_owned();
        self.remove_volume(&name);
        let claim = (
            machinery::object::str_at(volume, "spec.claimRef.namespace").to_owned(),
            machinery::object::str_at(volume, "spec.claimRef.name").to_owned(),
        );
        if claim.1.is_empty() {
            return;
        }
        let mut secrets = Vec::new();
        for source in
            ["csi.nodePublishSecretRef", "csi.nodeStageSecretRef", "csi.nodeExpandSecretRef", "iscsi.secretRef", "cephfs.secretRef"]
        {
            let path = format!("spec.{source}");
            let secret = machinery::object::str_at(volume, &format!("{path}.name"));
            if !secret.is_empty() {
                let namespace = machinery::object::str_at(volume, &format!("{path}.namespace"));
                let namespace = if namespace.is_empty() { &claim.0 } else { namespace };
                secrets.push((namespace.to_owned(), secret.to_owned()));
            }
        }
        self.volume_secrets.insert(name.clone(), secrets);
        self.volumes.insert(claim, name);
    }

    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.retain(|_, v| v != name);
        self.volume_secrets.remove(name);
    }

    pub fn set_attachment(&mut self, attachment: &Value) {
        let node = machinery::object::str_at(attachment, "spec.nodeName").to_owned();
        self.attachments.insert(machinery::object::name(attachment).to_owned(), node);
    }

    pub fn remove_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    fn uses(&self, node: &str, kind: &'static str, namespace: &str, name: &str) -> bool {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.users.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn reaches(&self, node: &str, asked: &Attributes) -> bool {
        let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
        match asked.resource.as_str() {
            "configmaps" => self.uses(node, "configmaps", namespace, name),
            "secrets" => {
                self.uses(node, "secrets", namespace, name)
                    || self.volumes.iter().any(|(claim, volume)| {
                        self.uses(node, "persistentvolumeclaims", &claim.0, &claim.1)
                            && self.volume_secrets.get(volume).is_some_and(|s| s.iter().any(|(ns, n)| ns == namespace && n == name))
                    })
            }
            "persistentvolumeclaims" => self.uses(node, "persistentvolumeclaims", namespace, name),
            "persistentvolumes" => {
                self.volumes.iter().any(|(claim, v)| v == name && self.uses(node, "persistentvolumeclaims", &claim.0, &claim.1))
            }
            "serviceaccounts" => self.uses(node, "serviceaccounts", namespace, name),
            "resourceclaims" => self.uses(node, "resourceclaims", namespace, name),
            "volumeattachments" => self.attachments.get(name).is_some_and(|n| n == node),
            _ => false,
        }
    }
}

fn targets_of(pod: &Value, namespace: &str) -> HashSet<Target> {
    let mut out = HashSet::new();
    let mut add = |kind: &'static str, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|n| !n.is_empty()) {
            out.insert((kind, namespace.to_owned(), name.to_owned()));
        }
    };
    let Some(spec) = pod.get("spec") else { return out };
    let list = |v: &Value, key: &str| v.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    // A mirror pod shows a static one: it grants nothing.
    let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    if mirror {
        return HashSet::new();
    }
    add("serviceaccounts", spec.get("serviceAccountName"));
    for secret in list(spec, "imagePullSecrets") {
        add("secrets", secret.get("name"));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(spec, containers) {
            for env in list(&container, "env") {
                add("secrets", env.pointer("/valueFrom/secretKeyRef/name"));
                add("configmaps", env.pointer("/valueFrom/configMapKeyRef/name"));
            }
            for from in list(&container, "envFrom") {
                add("secrets", from.pointer("/secretRef/name"));
                add("configmaps", from.pointer("/configMapRef/name"));
            }
        }
    }
    for volume in list(spec, "volumes") {
        add("secrets", volume.pointer("/secret/secretName"));
        add("configmaps", volume.pointer("/configMap/name"));
        add("persistentvolumeclaims", volume.pointer("/persistentVolumeClaim/claimName"));
        if volume.get("ephemeral").is_some() {
            let name = format!("{}-{}", machinery::object::name(pod), machinery::object::str_at(&volume, "name"));
            add("persistentvolumeclaims", Some(&Value::String(name)));
        }
        for source in ["azureFile", "flexVolume", "csi", "cephfs", "rbd", "scaleIO", "iscsi", "storageos"] {
            add("secrets", volume.pointer(&format!("/{source}/secretName")));
            add("secrets", volume.pointer(&format!("/{source}/secretRef/name")));
            add("secrets", volume.pointer(&format!("/{source}/nodePublishSecretRef/name")));
        }
        for projected in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
            add("secrets", projected.pointer("/secret/name"));
            add("configmaps", projected.pointer("/configMap/name"));
        }
    }
    for claim in pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array).into_iter().flatten() {
        add("resourceclaims", claim.get("resourceClaimName"));
    }
    for claim in list(spec, "resourceClaims") {
        add("resourceclaims", claim.get("resourceClaimName"));
    }
    out
}

/// What the Node authorizer says. `rules` are those of `system:node`, granted to every node beyond the graph.
pub fn authorize(graph: &Graph, rules: &[crate::rbac::Rule], asked: &Attributes) -> Decision {
    let Some(node) = asked.user.as_node() else { return Decision::NoOpinion(String::new()) };
    if asked.is_resource {
        let core = asked.group.is_empty();
        match asked.resource.as_str() {
            "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes" if core => {
                if asked.resource == "persistentvolumeclaims" && asked.subresource == "status" {
                    return by_graph(graph, node, asked, &["update", "patch"]);
                }
                return by_graph(graph, node, asked, &["get", "list", "watch"]);
            }
            "serviceaccounts" if core && asked.subresource == "token" && asked.verb == "create" => {
                return by_graph(graph, node, asked, &["create"]);
            }
            "serviceaccounts" if core && asked.subresource.is_empty() => return by_graph(graph, node, asked, &["get"]),
            "volumeattachments" if asked.group == "storage.k8s.io" => return by_graph(graph, node, asked, &["get"]),
            "resourceclaims" if asked.group == "resource.k8s.io" => return by_graph(graph, node, asked, &["get"]),
            "nodes" if core && asked.is_read_only() && asked.verb == "get" && asked.name != node => {
                return Decision::NoOpinion(format!("node '{node}' cannot read '{}', only its own Node object", asked.name));
            }
            "leases" if asked.group == "coordination.k8s.io" => return by_lease(node, asked),
            _ => {}
        }
    }
    if rules.iter().any(|r| r.allows(asked)) { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
}

fn by_lease(node: &str, asked: &Attributes) -> Decision {
    if !matches!(asked.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Decision::NoOpinion("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if asked.namespace != "kube-node-lease" {
        return Decision::NoOpinion("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    // The name of an object being created is in its body, which NodeRestriction checks.
    if asked.verb != "create" && asked.name != node {
        return Decision::NoOpinion("can only access node lease with the same name as the requesting node".to_owned());
    }
    Decision::Allow(String::new())
}

fn by_graph(graph: &Graph, node: &str, asked: &Attributes, verbs: &[&str]) -> Decision {
    if !verbs.contains(&asked.verb.as_str()) {
        return Decision::NoOpinion(format!("can only {} resources of this type", verbs.join("/")));
    }
    if asked.name.is_empty() {
        return Decision::NoOpinion("can only read namespaced object of this type".to_owned());
    }
    if graph.reaches(node, asked) {
        return Decision::Allow(String::new());
    }
    Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
}

#[cfg(test)]
mod tests {
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
}
