//! What OpenAPI says of custom resources, by upstream's rules: the definition's own schema with the words of metadata added;
//! version 2 without what it cannot say. Documents are kept as long as the rows they were made of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kinds::{Custom, Resource};
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::structural::CHECKS;
use serde_json::{Map, Value, json};

use super::paths::{self, Dialect};
use super::schemas::Schemas;
use super::{Document, v3_of, words};
use crate::registry::Snapshot;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// Deeper than any schema that was parsed.
const DEPTH_MAX: usize = 160;
/// What a published schema may say beside [`CHECKS`] and extensions.
const SAID: [&str; 8] = ["type", "title", "description", "default", "nullable", "properties", "items", "additionalProperties"];

/// Documents of custom group versions.
#[derive(Default)]
pub struct Documents {
    kept: Mutex<BTreeMap<GroupVersion, Kept>>,
}

#[derive(Clone)]
struct Kept {
    of: Vec<Arc<Custom>>,
    v2: Arc<Value>,
    v3: Document,
}

impl Documents {
    /// The version 3 document of a group version, if it is one of custom resources.
    pub(super) fn v3(&self, registry: &Snapshot, gv: &GroupVersion) -> Option<Document> {
        self.of(registry, gv).map(|kept| kept.v3)
    }

    /// Paths and definitions for the version 2 document, with their group versions.
    pub fn parts(&self, registry: &Snapshot) -> Vec<(String, Arc<Value>)> {
        let all = registry.group_versions().iter();
        all.filter_map(|gv| Some((format!("custom/{gv}"), self.of(registry, gv)?.v2))).collect()
    }

    fn of(&self, registry: &Snapshot, gv: &GroupVersion) -> Option<Kept> {
        let rows: Vec<&Resource> = registry.of(gv).filter(|r| r.custom.is_some()).map(|r| &**r).collect();
        let made_of: Vec<Arc<Custom>> = rows.iter().filter_map(|r| r.custom.clone()).collect();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if made_of.is_empty() {
            kept.remove(gv);
            return None;
        }
        let same = |k: &&Kept| k.of.len() == made_of.len() && k.of.iter().zip(&made_of).all(|(a, b)| Arc::ptr_eq(a, b));
        if let Some(found) = kept.get(gv).filter(same) {
            return Some(found.clone());
        }
        let made = Kept { of: made_of, v2: Arc::new(v2(gv, &rows)), v3: Document::new(v3(gv, &rows).to_string().as_bytes()) };
        kept.insert(gv.clone(), made.clone());
        Some(made)
    }
}

fn v3(gv: &GroupVersion, rows: &[&Resource]) -> Value {
    let mut schemas = Schemas::new(Dialect::V3, words());
    provide(&mut schemas, rows, Dialect::V3);
    let paths = paths::of_rows(gv, rows, &mut schemas);
    v3_of(paths, schemas)
}

fn v2(gv: &GroupVersion, rows: &[&Resource]) -> Value {
    let mut schemas = Schemas::new(Dialect::V2, words());
    provide(&mut schemas, rows, Dialect::V2);
    let paths = paths::of_rows(gv, rows, &mut schemas);
    json!({"paths": paths, "definitions": schemas.finish()})
}

/// Adds a part of [`Documents::parts`] to the document of built-in resources.
pub fn merge(all: &mut Value, part: &Value) {
    for key in ["paths", "definitions"] {
        let (Some(all), Some(part)) = (all.get_mut(key).and_then(Value::as_object_mut), part.get(key).and_then(Value::as_object)) else {
            continue;
        };
        for (name, value) in part {
            if !all.contains_key(name) {
                all.insert(name.clone(), value.clone());
            }
        }
    }
}

/// `com.example.stable.v1.CronTab`
fn friendly(gvk: &GroupVersionKind) -> String {
    let mut parts: Vec<&str> = gvk.group.split('.').rev().collect();
    parts.extend([gvk.version.as_str(), gvk.kind.as_str()]);
    parts.join(".")
}

fn provide(schemas: &mut Schemas, rows: &[&Resource], dialect: Dialect) {
    for row in rows {
        let gvk = row.gvk();
        let Some(custom) = &row.custom else { continue };
        let given = custom.definition.version(&row.version).map_or(&Value::Null, |v| &v.published);
        let name = friendly(&gvk);
        let object = object(schemas, given, dialect, &gvk);
        let reference = schemas.provide(&gvk, &name, object);
        let list_gvk = GroupVersionKind { kind: row.list_kind(), ..gvk };
        let list = list(schemas, row, &reference, &list_gvk);
        schemas.provide(&list_gvk, &friendly(&list_gvk), list);
    }
}

fn group_version_kind(gvk: &GroupVersionKind) -> Value {
    json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}])
}

/// The schema of one kind.
fn object(schemas: &mut Schemas, given: &Value, dialect: Dialect, gvk: &GroupVersionKind) -> Value {
    let preserves = given.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let mut out = if !given.is_object() || (dialect == Dialect::V2 && preserves) {
        // With properties, kubectl would take all others for unknown.
        json!({"type": "object"})
    } else {
        let mut out = publish(schemas, given, dialect, 0);
        resource_fields(schemas, &mut out, true);
        out
    };
    out["x-kubernetes-group-version-kind"] = group_version_kind(gvk);
    out
}

/// Adds what every object has.
fn resource_fields(schemas: &mut Schemas, schema: &mut Value, root: bool) {
    let metadata = schemas.metadata("ObjectMeta", "metadata");
    let (api_version, kind) = (schemas.word("apiVersion"), schemas.word("kind"));
    let properties = machinery::object::map_mut(schema, "properties");
    if root || !properties.contains_key("metadata") {
        properties.insert("metadata".into(), metadata);
    }
    properties.insert("apiVersion".into(), api_version);
    properties.insert("kind".into(), kind);
}

fn list(schemas: &mut Schemas, row: &Resource, item: &Value, gvk: &GroupVersionKind) -> Value {
    let about =
        format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", row.resource);
    json!({
        "description": format!("{} is a list of {}", row.list_kind(), row.kind), "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": schemas.word("apiVersion"), "kind": schemas.word("kind"),
            "metadata": schemas.metadata("ListMeta", "metadata"),
            "items": {"description": about, "type": "array", "items": item},
        },
        "x-kubernetes-group-version-kind": group_version_kind(gvk),
    })
}

/// A schema as it is published, with all below it.
fn publish(schemas: &mut Schemas, given: &Value, dialect: Dialect, depth: usize) -> Value {
    let Some(map) = given.as_object().filter(|_| depth < DEPTH_MAX) else { return given.clone() };
    let v2 = dialect == Dialect::V2;
    let nullable = v2 && map.get("nullable") == Some(&Value::Bool(true));
    let mut out = Map::new();
    for (key, value) in map {
        let said = CHECKS.contains(&key.as_str()) || SAID.contains(&key.as_str()) || key.starts_with("x-kubernetes-");
        // Version 2 knows neither alternatives nor null: what may be null is said to be anything.
        let dropped = v2 && (matches!(key.as_str(), "allOf" | "anyOf" | "oneOf" | "not" | "nullable") || (nullable && forgets(key)));
        if !said || dropped || value.is_null() {
            continue;
        }
        let value = match key.as_str() {
            "properties" => {
                let below = value.as_object().into_iter().flatten();
                Value::Object(below.map(|(name, schema)| (name.clone(), publish(schemas, schema, dialect, depth + 1))).collect())
            }
            "items" | "additionalProperties" => publish(schemas, value, dialect, depth + 1),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if !v2 && map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) && !out.contains_key("anyOf") && !out.contains_key("allOf")
    {
        out.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    let mut out = Value::Object(out);
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) && !nullable {
        resource_fields(schemas, &mut out, false);
    }
    out
}

/// What a nullable value's schema loses in version 2.
fn forgets(key: &str) -> bool {
    matches!(key, "type" | "items" | "properties")
}

/// The name of a type of meta/v1.
pub fn meta(name: &str) -> String {
    format!("{META}.{name}")
}
