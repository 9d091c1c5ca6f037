//! What is truly in the store, as parsed objects: kept from its writes, not from any watch. The invariants look at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

pub(crate) struct Object {
    pub revision: u64,
    pub bytes: Bytes,
    pub tree: Value,
}

#[derive(Default)]
pub(crate) struct State {
    pub revision: u64,
    objects: BTreeMap<String, Arc<Object>>,
    /// What may go without a write: as last written, perhaps gone.
    expiring: BTreeMap<String, Arc<Object>>,
}

type Change = (Option<Arc<Object>>, Option<Arc<Object>>);

impl State {
    /// Takes in a write; `None` when its revision is not new.
    pub fn apply(&mut self, revision: u64, key: &str, value: Option<&Bytes>) -> Option<Change> {
        if revision <= self.revision {
            return None;
        }
        self.revision = revision;
        let new = value.map(|bytes| {
            let tree = serde_json::from_slice(bytes).unwrap_or(Value::Null);
            Arc::new(Object { revision, bytes: bytes.clone(), tree })
        });
        if expires(key) {
            match &new {
                Some(object) => drop(self.expiring.insert(key.to_owned(), object.clone())),
                None => drop(self.expiring.remove(key)),
            }
            return Some((None, new));
        }
        let old = match &new {
            Some(object) => self.objects.insert(key.to_owned(), object.clone()),
            None => self.objects.remove(key),
        };
        Some((old, new))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.objects.get(key).map(|object| &object.tree)
    }

    /// Revision and bytes; of what expires, as it was when it was last heard of.
    pub fn stored(&self, key: &str) -> Option<(u64, Bytes)> {
        self.objects.get(key).or_else(|| self.expiring.get(key)).map(|object| (object.revision, object.bytes.clone()))
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &Object)> {
        self.objects.iter().map(|(key, object)| (key.as_str(), &**object))
    }

    /// Objects under a prefix, by key.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let range = self.objects.range(prefix.to_owned()..);
        range.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, object)| (key.as_str(), &object.tree))
    }

    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.under("/registry/pods/").map(|(_, pod)| pod)
    }

    /// Pods whose controller has this UID.
    pub fn pods_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods().filter(move |pod| controller(pod) == Some(uid))
    }
}

/// Those have leases: they go by themselves, without a write.
pub(crate) fn expires(key: &str) -> bool {
    key.starts_with("/registry/events/") || key.starts_with("/registry/masterleases/")
}

/// What is different in each run even with the same seed: keys and certificates are truly random, and the port that the
/// server listens on is the machine's to give.
pub(crate) fn is_secret(key: &str) -> bool {
    key.ends_with("/default/kubernetes")
        || ["/registry/secrets/", "/registry/configmaps/", "/registry/apiregistration.k8s.io/"].iter().any(|prefix| key.starts_with(prefix))
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn number(value: &Value, path: &str) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn uid_of(value: &Value) -> &str {
    text(value, "/metadata/uid")
}

pub(crate) fn owners(value: &Value) -> &[Value] {
    value.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// UID of the controlling owner.
pub(crate) fn controller(value: &Value) -> Option<&str> {
    owners(value).iter().find(|owner| owner["controller"] == true).and_then(|owner| owner["uid"].as_str())
}

pub(crate) fn is_deleting(value: &Value) -> bool {
    value.pointer("/metadata/deletionTimestamp").is_some()
}

pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

pub(crate) fn has_condition(value: &Value, kind: &str) -> bool {
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
}

/// One line on a write.
pub(crate) fn describe(key: &str, old: Option<&Object>, new: Option<&Object>) -> String {
    let short = key.strip_prefix("/registry/").unwrap_or(key);
    let verb = match (old, new) {
        (None, Some(_)) => "+",
        (Some(_), None) => "-",
        _ => "~",
    };
    let Some(object) = new.or(old).map(|object| &object.tree) else { return format!("{verb} {short}") };
    let mut out = format!("{verb} {short}");
    for path in
        ["/spec/nodeName", "/status/phase", "/spec/replicas", "/spec/parallelism", "/status/succeeded", "/metadata/generation", "/reason"]
    {
        if let Some(value) = object.pointer(path) {
            out.push_str(&format!(" {}={value}", path.rsplit('/').next().unwrap_or_default()));
        }
    }
    for (name, holds) in [("ready", has_condition(object, "Ready")), ("deleting", is_deleting(object))] {
        if holds {
            out.push(' ');
            out.push_str(name);
        }
    }
    out
}
