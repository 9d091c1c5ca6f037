//! Small questions about object metadata.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{Metadata, Resource};

use crate::Key;

pub fn name<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

pub fn namespace<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

pub fn uid<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

pub fn key<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Key {
    Key::new(namespace(object), name(object))
}

pub fn label<'a, K: Metadata<Ty = ObjectMeta>>(object: &'a K, key: &str) -> Option<&'a str> {
    object.metadata().labels.as_ref()?.get(key).map(String::as_str)
}

pub fn annotation<'a, K: Metadata<Ty = ObjectMeta>>(object: &'a K, key: &str) -> Option<&'a str> {
    object.metadata().annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn is_deleting<K: Metadata<Ty = ObjectMeta>>(object: &K) -> bool {
    object.metadata().deletion_timestamp.is_some()
}

pub fn created<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Timestamp {
    object.metadata().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The controlling owner.
pub fn controller<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Option<&OwnerReference> {
    object.metadata().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by<K: Metadata<Ty = ObjectMeta>>(object: &K, uid: &str) -> bool {
    controller(object).is_some_and(|owner| owner.uid == uid)
}

/// The key of the controlling owner if it is of kind `O`.
pub fn controller_key<O: Resource, K: Metadata<Ty = ObjectMeta>>(object: &K) -> Option<Key> {
    let owner = controller(object).filter(|owner| owner.kind == O::KIND && owner.api_version == O::API_VERSION)?;
    Some(Key::new(namespace(object), &owner.name))
}

/// As upstream's `metav1.NewControllerRef`.
pub fn controller_ref<O: Metadata<Ty = ObjectMeta>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::API_VERSION.to_owned(),
        kind: O::KIND.to_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// As times in objects are: whole seconds.
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Time from then to now; never negative.
pub fn since(then: &Time, now: Timestamp) -> SignedDuration {
    now.duration_since(then.0).max(SignedDuration::ZERO)
}

/// A positive duration as the runtime's timers take it.
pub fn unsigned(duration: SignedDuration) -> std::time::Duration {
    duration.max(SignedDuration::ZERO).unsigned_abs()
}
