//! What the garbage collector keeps of an object: who it is, who owns it, what holds it, whether it is going. Everything else
//! is dropped while it is decoded, as this is kept of every object in the cluster.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::core::{DynamicObject, Resource};
use kube::discovery::ApiResource;
use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug)]
pub struct Trimmed {
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Kept,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kept {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

impl<'de> Deserialize<'de> for Trimmed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata: kept } = Object::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: kept.name,
            namespace: kept.namespace,
            uid: kept.uid,
            resource_version: kept.resource_version,
            owner_references: kept.owner_references.filter(|owners| !owners.is_empty()),
            finalizers: kept.finalizers.filter(|finalizers| !finalizers.is_empty()),
            deletion_timestamp: kept.deletion_timestamp,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata })
    }
}

impl Resource for Trimmed {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn metadata_api() -> bool {
        true
    }
    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(kind)
    }
    fn group(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(kind)
    }
    fn version(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(kind)
    }
    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(kind)
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_collecting_needs_is_kept() {
        let text = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"n","uid":"u","labels":{"a":"b"},"annotations":{"c":"d"},
            "managedFields":[{"manager":"m"}],"finalizers":["f"],"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"w"}]}}"#;
        let trimmed: Trimmed = serde_json::from_str(text).unwrap();
        let meta = &trimmed.metadata;
        assert_eq!((meta.uid.as_deref(), meta.finalizers.as_ref().map(Vec::len)), (Some("u"), Some(1)));
        assert_eq!(meta.owner_references.as_ref().map(|owners| owners[0].uid.as_str()), Some("w"));
        assert!(meta.labels.is_none() && meta.annotations.is_none() && meta.managed_fields.is_none());
    }
}
