//! The resources this server serves: the table of built-in kinds, and room for those made at run time. Looked up by every
//! request; listed by discovery.

use std::sync::Arc;

use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};

#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

impl Registry {
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        kinds::table().by_resource(&GroupVersionResource::new(group, version, resource)).cloned()
    }

    /// The preferred version of a kind.
    pub fn kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        self.resources().find(|r| r.group == group && r.kind == kind).cloned()
    }

    pub fn versioned_kind(&self, gvk: &GroupVersionKind) -> Option<Arc<Resource>> {
        kinds::table().by_kind(gvk).cloned()
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        kinds::table().resources().iter()
    }

    pub fn group_versions(&self) -> &[GroupVersion] {
        kinds::table().group_versions()
    }

    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.group_versions().iter().any(|gv| gv.group == group && gv.version == version)
    }
}

/// The store key of an object.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{}/{name}", resource.storage_prefix)
    } else {
        format!("{}/{namespace}/{name}", resource.storage_prefix)
    }
}

/// The prefix of all objects of a resource, or of those in a namespace.
pub fn prefix(resource: &Resource, namespace: &str) -> String {
    if namespace.is_empty() { format!("{}/", resource.storage_prefix) } else { format!("{}/{namespace}/", resource.storage_prefix) }
}
