//! Namespace deletion: what a terminating namespace still holds becomes conditions, and in the end the `kubernetes`
//! finalizer goes. Upstream's `namespacedResourcesDeleter`. It works on any kind; the shell deletes and counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};

use crate::meta;

pub const NAME: &str = "namespace-controller";
pub const FINALIZER: &str = "kubernetes";

/// What a round of deleting left behind.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// Objects left, by `plural.group`.
    pub objects: BTreeMap<String, usize>,
    /// Objects left that have a finalizer, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    pub discovery_error: Option<String>,
    pub delete_errors: Vec<String>,
}

impl Remains {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.discovery_error.is_none() && self.delete_errors.is_empty()
    }
}

/// Whether a namespace is this controller's to empty.
pub fn must_be_emptied(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    meta::is_deleting(namespace) && finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

/// The conditions after a round, or `None` when they are as they were. Those that never failed are not mentioned.
pub fn conditions(namespace: &Namespace, remains: &Remains, now: Timestamp) -> Option<Vec<NamespaceCondition>> {
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut new = old.clone();
    let counted = |counts: &BTreeMap<String, usize>, unit: &str| -> String {
        counts.iter().map(|(name, count)| format!("{name} has {count} {unit}")).collect::<Vec<_>>().join(", ")
    };
    let discovery =
        remains.discovery_error.as_ref().map(|error| ("DiscoveryFailed", format!("Discovery failed for some groups, 1 failing: {error}")));
    let deletion = (!remains.delete_errors.is_empty()).then(|| {
        let errors = remains.delete_errors.join(", ");
        ("ContentDeletionFailed", format!("Failed to delete all resource types, {} remaining: {errors}", remains.delete_errors.len()))
    });
    let content = (!remains.objects.is_empty())
        .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", counted(&remains.objects, "resource instances"))));
    let finalizers = (!remains.finalizers.is_empty()).then(|| {
        let counts = counted(&remains.finalizers, "resource instances").replace(" has ", " in ");
        ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {counts}"))
    });
    let rows = [
        ("NamespaceDeletionDiscoveryFailure", discovery, "ResourcesDiscovered", "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", None, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ("NamespaceDeletionContentFailure", deletion, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ("NamespaceContentRemaining", content, "ContentRemoved", "All content successfully removed"),
        ("NamespaceFinalizersRemaining", finalizers, "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    ];
    for (kind, failing, fine_reason, fine_message) in rows {
        let (status, (reason, message)) = match failing {
            Some(failing) => ("True", failing),
            None => ("False", (fine_reason, fine_message.to_owned())),
        };
        set(&mut new, kind, status, reason, message, now);
    }
    (new != old).then_some(new)
}

fn set(conditions: &mut Vec<NamespaceCondition>, kind: &str, status: &str, reason: &str, message: String, now: Timestamp) {
    let old = conditions.iter().find(|condition| condition.type_ == kind);
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    let new = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or_else(|| meta::time(now))),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_is_told_once() {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}
        }))
        .unwrap();
        assert!(must_be_emptied(&namespace));
        let now = Timestamp::new(1_700_000_000, 0).unwrap();
        let remains = Remains {
            objects: BTreeMap::from([("pods.".to_owned(), 2)]),
            finalizers: BTreeMap::from([("x.io/hold".to_owned(), 1)]),
            ..Remains::default()
        };
        let told = conditions(&namespace, &remains, now).unwrap();
        let texts: Vec<_> = told.iter().filter(|one| one.status == "True").map(|one| one.message.clone().unwrap()).collect();
        assert_eq!(
            texts,
            [
                "Some resources are remaining: pods. has 2 resource instances",
                "Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances",
            ]
        );
        let mut again = namespace.clone();
        again.status.get_or_insert_default().conditions = Some(told);
        assert!(conditions(&again, &remains, now).is_none());
        assert!(conditions(&again, &Remains::default(), now).unwrap().iter().all(|one| one.status == "False"));
    }
}
