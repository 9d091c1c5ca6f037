//! Volumes, claims and volume attributes classes get the finalizer that holds them while something uses them.

use async_trait::async_trait;
use machinery::object::metadata_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

/// Group, kind and the finalizer of its objects.
const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "PersistentVolumeClaim", "kubernetes.io/pvc-protection"),
    ("", "PersistentVolume", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "VolumeAttributesClass", "kubernetes.io/vac-protection"),
];

pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && finalizer(request).is_some()
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let Some(name) = finalizer(request) else { return Ok(()) };
        let meta = metadata_mut(value);
        let mut list = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if !list.iter().any(|f| f == name) {
            list.push(json!(name));
            meta.insert("finalizers".into(), json!(list));
        }
        Ok(())
    }
}

fn finalizer(request: &Request<'_>) -> Option<&'static str> {
    PROTECTED.into_iter().find(|(group, kind, _)| request.is(group, kind)).map(|(_, _, name)| name)
}
