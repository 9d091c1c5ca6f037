//! Telling pod templates apart, and the hash that names a ReplicaSet after its template.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use machinery::names::SUFFIX_ALPHABET;
use mix::Fnv32;
use serde_json::Value;

use crate::action::to_value;

pub const HASH_LABEL: &str = "pod-template-hash";

/// Equal but for the hash label.
pub fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> Value {
    let mut metadata = template.metadata.as_ref().map(to_value).unwrap_or(Value::Null);
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
        if labels.is_empty() {
            metadata["labels"] = Value::Null;
        }
    }
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    if metadata.as_object().is_none_or(serde_json::Map::is_empty) { Value::Null } else { metadata }
}

/// FNV-1a (32 bits) of the template and of how often its name was taken already, in the alphabet of generated names.
///
/// Upstream hashes a dump of its own types; here it is the canonical JSON (sorted keys, absent fields left out), which a
/// release of the types that adds fields does not change. Nothing relies on the value: templates are compared in full.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv32::default();
    hash.eat(to_value(template).to_string().into_bytes());
    if let Some(collisions) = collisions {
        hash.eat(u64::try_from(collisions).unwrap_or(0).to_le_bytes());
    }
    hash.0.to_string().bytes().map(|digit| char::from(SUFFIX_ALPHABET[usize::from(digit) % 27])).collect()
}
