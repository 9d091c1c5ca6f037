//! Objects as `application/vnd.kubernetes.protobuf` and back, by the facts of their types. Custom resources have none.

use std::sync::Arc;

use bytes::Bytes;
use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::object::str_at;
use machinery::proto::{self, ProtoError};
use machinery::schema::TypeId;
use machinery::status::StatusError;
use serde_json::Value;

use crate::cache::{Encoding, Entry};
use crate::codec;
use crate::verbs::view;

/// How much of a body an error shows, in bytes.
const SUMMARY_BYTES: usize = 30;

/// Whether objects of the resource can be written as protobuf: those of the table can, those made at run time cannot.
pub fn has(resource: &Resource) -> bool {
    resource.custom.is_none()
}

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let gv = GroupVersion::parse(api_version).ok()?;
    kinds::table().type_of(&gv.kind(kind))
}

/// An object, a list or a Status in its envelope; `None` for what has no such form.
pub fn encode(value: &Value) -> Option<Vec<u8>> {
    let ty = type_of(str_at(value, "apiVersion"), str_at(value, "kind"))?;
    Some(proto::to_envelope(kinds::types(), ty, value))
}

/// The message of a cached object, made once for all who ask for it.
fn message_of(resource: &Resource, entry: &Entry) -> Bytes {
    // Each version an object is served in has a type of its own.
    entry.encoding(Encoding(resource.ty.0), |entry| {
        let object = view::served(resource, codec::decode(&entry.bytes, entry.revision));
        proto::to_message(&resource.types, resource.ty, &object).into()
    })
}

/// A cached object in its envelope.
pub fn sealed(resource: &Resource, entry: &Entry) -> Vec<u8> {
    proto::seal(&resource.gvk().api_version(), &resource.kind, &message_of(resource, entry))
}

/// A list of cached objects. `metadata` is that of the list.
pub fn list(resource: &Resource, metadata: &Value, items: &[Arc<Entry>]) -> Option<Vec<u8>> {
    let (api_version, kind) = (resource.gvk().api_version(), format!("{}List", resource.kind));
    let ty = type_of(&api_version, &kind)?;
    let head = proto::to_message(kinds::types(), ty, &serde_json::json!({"metadata": metadata}));
    let messages: Vec<Bytes> = items.iter().map(|entry| message_of(resource, entry)).collect();
    Some(proto::seal(&api_version, &kind, &proto::with_items(head, messages.iter().map(|m| &**m))))
}

/// A body as a tree; what it does not say of its kind is taken from `want`.
pub fn decode(bytes: &[u8], want: &GroupVersionKind) -> Result<Value, StatusError> {
    let unrecognized = |why: &dyn std::fmt::Display| {
        let shown = summary(bytes);
        StatusError::bad_request(format!("the object provided is unrecognized (must be of type {}): {why} ({shown})", want.kind))
    };
    if bytes.is_empty() {
        return Err(unrecognized(&"empty data"));
    }
    if bytes == proto::MAGIC {
        return Err(unrecognized(&"empty body"));
    }
    let envelope = proto::open(bytes).map_err(|e| unrecognized(&e))?;
    let or = |given: String, default: String| if given.is_empty() { default } else { given };
    let (api_version, kind) = (or(envelope.api_version, want.api_version()), or(envelope.kind, want.kind.clone()));
    let mut value = match type_of(&api_version, &kind) {
        Some(ty) => {
            let handled = |e: ProtoError| {
                let version = GroupVersion::parse(&api_version).map(|gv| gv.version).unwrap_or_default();
                StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {e}", want.kind))
            };
            proto::from_message(kinds::types(), ty, envelope.raw).map_err(handled)?
        }
        // Nobody knows this kind: the caller says so.
        None => Value::Object(serde_json::Map::new()),
    };
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Ok(value)
}

/// The beginning of a body, for errors (upstream's `summarizeData`).
fn summary(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SUMMARY_BYTES)];
    let more = if bytes.len() > SUMMARY_BYTES { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", hex::encode(shown)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_round_trip_and_bad_ones_are_named() {
        let want = GroupVersionKind::new("", "v1", "ConfigMap");
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "creationTimestamp": null}, "data": {"k": "v"}});
        let bytes = encode(&object).unwrap();
        let back = decode(&bytes, &want).unwrap();
        assert_eq!((&back["data"], &back["metadata"]["name"], &back["kind"]), (&object["data"], &json!("a"), &json!("ConfigMap")));
        let message = |bytes: &[u8]| decode(bytes, &want).unwrap_err().message;
        let prefix = "the object provided is unrecognized (must be of type ConfigMap):";
        assert_eq!(message(b"k8s\0"), format!("{prefix} empty body (6b387300)"));
        assert_eq!(message(b"k8s\0\xff\xff"), format!("{prefix} unexpected EOF (6b387300ffff)"));
        let junk = format!("{prefix} provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6a756e6b)");
        assert_eq!(message(b"junk"), junk);
        assert!(encode(&json!({"kind": "Nothing", "apiVersion": "example.com/v1"})).is_none());
    }
}
