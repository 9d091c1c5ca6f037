//! What a controller wants done, as data. `controller-runtime` executes actions in order and stops at the first that
//! fails, so a later one may rely on an earlier one.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::{Value, json};

/// What to do now and when to look again even if nothing changes.
#[derive(Debug, Default)]
pub struct Outcome {
    pub actions: Vec<Action>,
    pub requeue_after: Option<Duration>,
    /// What the next pass over this key finds in [`Context::memory`](crate::Context); lost in a restart.
    pub memory: Option<Value>,
}

impl Outcome {
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Keeps the sooner of two times to look again.
    pub fn requeue_in(&mut self, after: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(after, |before| before.min(after)));
    }
}

impl From<Vec<Action>> for Outcome {
    fn from(actions: Vec<Action>) -> Self {
        Self { actions, requeue_after: None, memory: None }
    }
}

/// An object's place in the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    pub api_version: String,
    pub kind: String,
    /// The path segment of the resource.
    pub plural: String,
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    pub name: String,
}

impl Target {
    pub fn of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        let meta = object.metadata();
        Self::named::<K>(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    pub fn named<K: Resource>(namespace: &str, name: &str) -> Self {
        let (api_version, kind, plural) = (K::API_VERSION.to_owned(), K::KIND.to_owned(), K::URL_PATH_SEGMENT.to_owned());
        Self { api_version, kind, plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The path of the collection.
    pub fn collection_path(&self) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("/namespaces/{}", self.namespace) };
        format!("{root}/{}{namespace}/{}", self.api_version, self.plural)
    }
}

/// Something to tell about an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    pub regarding: ObjectReference,
    pub warning: bool,
    pub reason: String,
    /// `{}` stands for the error in an event about a failure.
    pub message: String,
}

impl Event {
    pub fn normal<K: Metadata<Ty = ObjectMeta>>(object: &K, reason: &str, message: String) -> Self {
        Self { regarding: reference(object), warning: false, reason: reason.to_owned(), message }
    }

    pub fn warning<K: Metadata<Ty = ObjectMeta>>(object: &K, reason: &str, message: String) -> Self {
        Self { warning: true, ..Self::normal(object, reason, message) }
    }
}

/// A full reference to an object.
pub fn reference<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    Create {
        target: Target,
        object: Value,
        /// Recorded when it worked, and when it did not.
        done: Option<Event>,
        failed: Option<Event>,
    },
    /// A merge patch. Its metadata carries the UID and resourceVersion it was computed from.
    Patch {
        target: Target,
        subresource: Option<&'static str>,
        /// Read, merge and update instead of patching: what upstream's controllers do, and what their roles allow.
        update: bool,
        patch: Value,
        done: Option<Event>,
        failed: Option<Event>,
    },
    /// A delete of exactly this incarnation; one that is already gone is a success.
    Delete {
        target: Target,
        uid: Option<String>,
        resource_version: Option<String>,
        propagation: Option<&'static str>,
        grace_seconds: Option<i64>,
        done: Option<Event>,
        failed: Option<Event>,
    },
    /// An update with the whole object.
    Replace {
        target: Target,
        subresource: Option<&'static str>,
        object: Value,
    },
    /// Server-side apply, by force, in the name of `manager`.
    Apply {
        target: Target,
        manager: &'static str,
        object: Value,
    },
    /// Asks the API server itself whether this incarnation lives and is not being deleted; stops here if not.
    RequireLive {
        target: Target,
        uid: String,
    },
    /// Asks the API server itself whether nothing of this name exists; stops here if something does.
    RequireAbsent {
        target: Target,
    },
    Record(Event),
    /// Puts an access review to the API server and goes on accordingly; where nothing is to be done otherwise, it is asked again
    /// later, as the right may come.
    IfAllowed {
        review: Value,
        then: Vec<Action>,
        otherwise: Vec<Action>,
    },
    /// Independent of one another; executed concurrently, and all tried. Fails if any of them does.
    Together(Vec<Action>),
}

impl Action {
    /// Creates a typed object; a write that only makes sense once per name.
    pub fn create<K: Metadata<Ty = ObjectMeta> + Serialize>(object: &K) -> Self {
        Self::Create { target: Target::of(object), object: to_value(object), done: None, failed: None }
    }

    pub fn delete<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        let (target, uid) = (Target::of(object), object.metadata().uid.clone());
        Self::Delete { target, uid, resource_version: None, propagation: None, grace_seconds: None, done: None, failed: None }
    }

    /// A merge patch on the object as it was read: it fails when anything has changed since.
    pub fn patch<K: Metadata<Ty = ObjectMeta>>(object: &K, mut patch: Value) -> Self {
        let meta = object.metadata();
        patch["metadata"]["uid"] = json!(meta.uid);
        patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
        Self::Patch { target: Target::of(object), subresource: None, update: false, patch, done: None, failed: None }
    }

    /// As [`Action::patch`], where the controller's role has `get` and `update` but not `patch`.
    pub fn update<K: Metadata<Ty = ObjectMeta>>(object: &K, patch: Value) -> Self {
        let mut action = Self::patch(object, patch);
        if let Self::Patch { update, .. } = &mut action {
            *update = true;
        }
        action
    }

    /// An update of the status from one value to another; `None` when they are equal.
    pub fn update_status<K: Metadata<Ty = ObjectMeta>, S: Serialize>(object: &K, old: &Option<S>, new: &S) -> Option<Self> {
        let old = old.as_ref().map(to_value).unwrap_or_else(|| json!({}));
        let status = merge_diff(&old, &to_value(new))?;
        Some(Self::update(object, json!({ "status": status })).on_subresource("status"))
    }

    /// As [`Action::update_status`], where the controller's role cannot read the object by itself: the cached one is sent.
    pub fn replace_status<K: Metadata<Ty = ObjectMeta> + Serialize, S: Serialize>(object: &K, new: &S) -> Self {
        let mut tree = to_value(object);
        tree["status"] = to_value(new);
        Self::Replace { target: Target::of(object), subresource: Some("status"), object: tree }
    }

    pub fn on_subresource(mut self, name: &'static str) -> Self {
        if let Self::Patch { subresource, .. } = &mut self {
            *subresource = Some(name);
        }
        self
    }

    /// Also fails when the object has changed since it was read.
    pub fn if_unchanged<K: Metadata<Ty = ObjectMeta>>(mut self, object: &K) -> Self {
        if let Self::Delete { resource_version, .. } = &mut self {
            resource_version.clone_from(&object.metadata().resource_version);
        }
        self
    }

    pub fn tell_done(mut self, event: Event) -> Self {
        if let Self::Create { done, .. } | Self::Patch { done, .. } | Self::Delete { done, .. } = &mut self {
            *done = Some(event);
        }
        self
    }

    pub fn tell_failed(mut self, event: Event) -> Self {
        if let Self::Create { failed, .. } | Self::Patch { failed, .. } | Self::Delete { failed, .. } = &mut self {
            *failed = Some(event);
        }
        self
    }
}

/// Batches of 1, 2, 4, ... as upstream's `slowStartBatch`: a quota or webhook that refuses all is asked once, not a
/// thousand times.
pub fn slow_start(actions: Vec<Action>) -> Vec<Action> {
    let mut batches = Vec::new();
    let mut rest = actions.into_iter().peekable();
    let mut size = 1;
    while rest.peek().is_some() {
        batches.push(Action::Together(rest.by_ref().take(size).collect()));
        size *= 2;
    }
    batches
}

/// A typed object as a tree. The types written here serialise without failing.
pub fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The JSON merge patch (RFC 7386) that makes `new` of `old`; `None` when they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = serde_json::Map::new();
    for (name, value) in new {
        match old.get(name) {
            None => drop(patch.insert(name.clone(), value.clone())),
            Some(before) => drop(merge_diff(before, value).map(|diff| patch.insert(name.clone(), diff))),
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Applies a JSON merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
