//! Objects as bytes in the store: kind and apiVersion, then metadata, first, and no resourceVersion. Reading puts the
//! revision in by joining bytes; only writes and unusual views parse.

use std::cell::Cell;

use bytes::{BufMut as _, Bytes, BytesMut};
use machinery::apply::Managers;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::Value;
use store::Revision;

const METADATA: &[u8] = b"\"metadata\":{";
/// kind and apiVersion are short; the metadata of any object of ours begins before this.
const HEAD_BYTES_MAX: usize = 1024;

/// A writer's buffer is kept up to this size.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The stored form of an object: of just its size, as it stays in memory for as long as the object lives. A buffer that grew by
/// doubling kept a third of its bytes for nothing.
pub fn encode(object: &Value) -> Bytes {
    encoded(|out| write(out, object, None))
}

/// As [`encode`] of an object whose managers are apart: the same bytes as of the whole.
pub fn encode_apart(object: &Value, managers: &Managers) -> Bytes {
    encoded(|out| write(out, object, Some(managers).filter(|m| !m.is_empty())))
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = SCRATCH.take();
    write(&mut out);
    let bytes = Bytes::copy_from_slice(&out);
    out.clear();
    out.shrink_to(SCRATCH_BYTES_MAX);
    SCRATCH.set(out);
    bytes
}

fn write(out: &mut Vec<u8>, object: &Value, managers: Option<&Managers>) {
    let empty = serde_json::Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    out.push(b'{');
    for key in ["kind", "apiVersion"] {
        if let Some(value) = fields.get(key) {
            member(out, key, value);
            out.push(b',');
        }
    }
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    match managers {
        Some(managers) => write_metadata(out, metadata, managers),
        None => member(out, "metadata", &Without { map: metadata, key: "resourceVersion" }),
    }
    for (key, value) in fields {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            out.push(b',');
            member(out, key, value);
        }
    }
    out.push(b'}');
}

/// The managers among the other members, which are sorted.
fn write_metadata(out: &mut Vec<u8>, metadata: &serde_json::Map<String, Value>, managers: &Managers) {
    const OWN: &str = "managedFields";
    let others = || metadata.iter().filter(|(key, _)| !matches!(key.as_str(), OWN | "resourceVersion"));
    out.extend_from_slice(METADATA);
    for (key, value) in others().filter(|(key, _)| key.as_str() < OWN) {
        member(out, key, value);
        out.push(b',');
    }
    out.extend_from_slice(br#""managedFields":"#);
    managers.write_json(out);
    for (key, value) in others().filter(|(key, _)| key.as_str() > OWN) {
        out.push(b',');
        member(out, key, value);
    }
    out.push(b'}');
}

/// A map but for one key.
struct Without<'a> {
    map: &'a serde_json::Map<String, Value>,
    key: &'a str,
}

impl Serialize for Without<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.map.iter().filter(|(key, _)| *key != self.key))
    }
}

fn member(out: &mut Vec<u8>, key: &str, value: &impl Serialize) {
    // Writing a tree with string keys into memory cannot fail.
    let written = serde_json::to_writer(&mut *out, key).and_then(|()| {
        out.push(b':');
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, GoNumbers))
    });
    if let Err(e) = written {
        tracing::error!(error = %e, "a JSON tree could not be written");
    }
}

/// Compact JSON with floats as Go writes them: `1.0` is `1`, and an integer to whoever reads it back.
struct GoNumbers;

impl serde_json::ser::Formatter for GoNumbers {
    fn write_f64<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
        writer.write_all(machinery::field::go_json_float(value).as_bytes())
    }
}

/// Where the members of metadata begin.
fn metadata_at(bytes: &[u8]) -> Option<usize> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    head.windows(METADATA.len()).position(|w| w == METADATA).map(|at| at + METADATA.len())
}

/// Appends the object with its resourceVersion.
pub fn splice_into(out: &mut BytesMut, bytes: &[u8], revision: Revision) {
    let Some(at) = metadata_at(bytes) else {
        out.extend_from_slice(bytes);
        return;
    };
    out.reserve(bytes.len() + 48);
    out.extend_from_slice(&bytes[..at]);
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(revision.0.to_string().as_bytes());
    out.put_slice(if bytes.get(at) == Some(&b'}') { b"\"" } else { b"\"," });
    out.extend_from_slice(&bytes[at..]);
}

/// The object as a client sees it.
pub fn splice(bytes: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::new();
    splice_into(&mut out, bytes, revision);
    out.freeze()
}

/// The tree, with its resourceVersion. `Null` for bytes that are no JSON, which the store never hands out.
pub fn decode(bytes: &[u8], revision: Revision) -> Value {
    let mut object: Value = serde_json::from_slice(bytes).unwrap_or_else(|e| {
        tracing::error!(error = %e, "a stored object does not parse");
        Value::Null
    });
    if revision.0 != 0 && object.is_object() {
        machinery::object::metadata_mut(&mut object).insert("resourceVersion".to_owned(), Value::String(revision.0.to_string()));
    }
    object
}

/// As [`decode`], without the members of these names of the object's members (`metadata.managedFields`): for who follows all
/// writes of a kind and looks at a few fields.
pub fn decode_without(bytes: &[u8], revision: Revision, skipped: &[&str]) -> Value {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut object = Slim { skipped, depth: 0 }.deserialize(&mut json).unwrap_or_else(|e| {
        tracing::error!(error = %e, "a stored object does not parse");
        Value::Null
    });
    if revision.0 != 0 && object.is_object() {
        machinery::object::metadata_mut(&mut object).insert("resourceVersion".to_owned(), Value::String(revision.0.to_string()));
    }
    object
}

/// Reads the two upper levels of an object member by member.
struct Slim<'a> {
    skipped: &'a [&'a str],
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Slim<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Slim<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let (upper, structured) = (self.depth == 0, matches!(key.as_str(), "metadata" | "status"));
            if !upper && self.skipped.contains(&key.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value =
                if upper && structured { map.next_value_seed(Slim { skipped: self.skipped, depth: 1 })? } else { map.next_value()? };
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_are_stored_as_go_stores_them() {
        let bytes = encode(&json!({"metadata": {}, "spec": [1.0, 1.5, 1e21, 1e-7, -0.0, 1, 100_000_000.5]}));
        assert_eq!(bytes, r#"{"metadata":{},"spec":[1,1.5,1e+21,1e-7,-0,1,100000000.5]}"#);
    }

    #[test]
    fn what_is_stored_reads_back_with_its_revision() {
        for object in [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "7"}, "data": {"metadata": "{"}}),
            json!({"apiVersion": "v1", "kind": "X", "metadata": {}}),
            json!({"apiVersion": "v1", "kind": "X"}),
        ] {
            let bytes = encode(&object);
            let mut want = object.clone();
            machinery::object::metadata_mut(&mut want).insert("resourceVersion".to_owned(), json!("9"));
            let spliced: Value = serde_json::from_slice(&splice(&bytes, Revision(9))).unwrap_or_default();
            assert_eq!(spliced, want);
            assert_eq!(decode(&bytes, Revision(9)), want);
            assert!(!String::from_utf8_lossy(&bytes).contains("resourceVersion"));
        }
    }

    #[test]
    fn managers_apart_are_stored_as_in_the_tree() {
        let (types, ty) =
            (kinds::types(), kinds::table().type_of(&machinery::gvk::GroupVersionKind::new("", "v1", "Pod")).unwrap_or_default());
        let entry = json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:\"é": {}}}, "manager": "m",
            "operation": "Update", "subresource": "status", "time": "2026-01-01T00:00:00Z"});
        for others in [json!({}), json!({"annotations": {"a": "b"}}), json!({"name": "a"}), json!({"labels": {}, "name": "a", "uid": "u"})]
        {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": others, "data": {"a": 1.0}});
            assert_eq!(encode_apart(&object, &Managers::default()), encode(&object));
            object["metadata"]["resourceVersion"] = json!("7");
            object["metadata"]["managedFields"] = json!([entry]);
            let whole = encode(&object);
            let managers = Managers::take_from(types, ty, &mut object).unwrap_or_default();
            assert!(!managers.is_empty());
            assert_eq!(encode_apart(&object, &managers), whole);
        }
    }

    #[test]
    fn what_nobody_looks_at_is_not_decoded() {
        let object = json!({"kind": "Pod", "metadata": {"name": "a", "managedFields": [{"x": [1]}]}, "spec": {"conditions": 1},
            "status": {"conditions": [{}], "claims": [1]}});
        let slim = decode_without(&encode(&object), Revision(3), &["managedFields", "conditions"]);
        let want = json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "3"}, "spec": {"conditions": 1},
            "status": {"claims": [1]}});
        assert_eq!(slim, want);
    }
}
