//! What belongs to which node: from objects up through pods and volumes to the node that runs them. The API server feeds it
//! pods, volumes, attachments and resource slices; [`super::authorize`] asks it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::attributes::Attributes;

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
    /// resource slice -> node
    slices: HashMap<String, String>,
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

    pub fn set_slice(&mut self, slice: &Value) {
        let node = machinery::object::str_at(slice, "spec.nodeName").to_owned();
        self.slices.insert(machinery::object::name(slice).to_owned(), node);
    }

    pub fn remove_slice(&mut self, name: &str) {
        self.slices.remove(name);
    }

    fn uses(&self, node: &str, kind: &'static str, namespace: &str, name: &str) -> bool {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.users.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Whether the object asked for belongs to the node.
    pub(super) fn reaches(&self, node: &str, asked: &Attributes) -> bool {
        let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
        match asked.resource.as_str() {
            "pods" => self.pods.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|(n, _)| n == node),
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
            "resourceslices" => self.slices.get(name).is_some_and(|n| n == node),
            _ => false,
        }
    }
}

/// Whether a pod refers to objects of a kind (`secrets`, `configmaps`), mirror or not.
pub fn pod_references(pod: &Value, kind: &str) -> bool {
    references_of(pod, "").iter().any(|(k, _, _)| *k == kind)
}

fn targets_of(pod: &Value, namespace: &str) -> HashSet<Target> {
    // A mirror pod shows a static one: it grants nothing.
    let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    if mirror { HashSet::new() } else { references_of(pod, namespace) }
}

fn references_of(pod: &Value, namespace: &str) -> HashSet<Target> {
    let mut out = HashSet::new();
    let mut add = |kind: &'static str, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|n| !n.is_empty()) {
            out.insert((kind, namespace.to_owned(), name.to_owned()));
        }
    };
    let Some(spec) = pod.get("spec") else { return out };
    fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
        v.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
    add("serviceaccounts", spec.get("serviceAccountName"));
    for secret in list(spec, "imagePullSecrets") {
        add("secrets", secret.get("name"));
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(spec, containers) {
            for env in list(container, "env") {
                add("secrets", env.pointer("/valueFrom/secretKeyRef/name"));
                add("configmaps", env.pointer("/valueFrom/configMapKeyRef/name"));
            }
            for from in list(container, "envFrom") {
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
            let name = format!("{}-{}", machinery::object::name(pod), machinery::object::str_at(volume, "name"));
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
    add("resourceclaims", pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName"));
    for claim in list(spec, "resourceClaims") {
        add("resourceclaims", claim.get("resourceClaimName"));
    }
    out
}
