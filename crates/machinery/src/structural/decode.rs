//! What becomes of a custom resource between its bytes and its defaults: unknown fields are dropped and reported, nulls that
//! nobody allows are dropped, metadata (its own and that of embedded resources) takes Go's form. Upstream's
//! `schemaCoercingDecoder`, `structuralpruning.Prune` and `objectmeta.Coerce`. Types of other values are `validate`'s.

use serde_json::{Map, Value};

use super::Schema;
use super::trail::Trail;
use crate::decode::DecodeError;
use crate::field::{self, go_value};
use crate::schema::{TypeId, Types};

/// Unknown fields beyond this many are dropped without being named.
const UNKNOWN_MAX: usize = 1_000;
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The facts of `ObjectMeta`, which schemas do not describe.
#[derive(Clone, Copy)]
pub struct ObjectMeta<'t> {
    pub types: &'t Types,
    pub ty: TypeId,
}

/// Where an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Metadata of the wrong type is an error.
    Request,
    /// As of a request, of what server-side apply or admission made: its nulls are validation's to refuse.
    Made,
    /// Fields of metadata that have the wrong type are dropped: an older server let them in.
    Storage,
}

impl Schema {
    /// Brings a whole object into the form it is stored in, but for defaults. The texts are strict errors: `unknown field "spec.x"`.
    pub fn decode(&self, meta: ObjectMeta<'_>, source: Source, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        let mut unknown = Vec::new();
        if let Value::Object(map) = &mut *object {
            metadata(meta, source, map, "", &mut unknown)?;
        }
        unknown.extend(self.prune(object, true));
        if source != Source::Made {
            self.prune_nulls(object);
        }
        if source != Source::Storage {
            whole_numbers(object);
        }
        self.coerce(meta, source, object, &Trail::default(), &mut unknown)?;
        Ok(unknown.iter().map(|path| format!("unknown field {}", field::go_quote(path))).collect())
    }

    /// Drops what the schema does not know. With `root`, `apiVersion`, `kind` and `metadata` stay. The paths of what was
    /// dropped come sorted.
    pub fn prune(&self, value: &mut Value, root: bool) -> Vec<String> {
        let mut pruner = Pruner { unknown: Vec::new() };
        pruner.value(value, Some(self), root, false, &Trail::default());
        pruner.unknown.sort();
        pruner.unknown
    }

    /// Metadata of embedded resources, below the root.
    fn coerce(
        &self,
        meta: ObjectMeta<'_>,
        source: Source,
        value: &mut Value,
        at: &Trail<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), DecodeError> {
        match value {
            Value::Object(map) => {
                if self.embedded_resource {
                    type_meta(source, map, at)?;
                    metadata(meta, source, map, &at.to_string(), unknown)?;
                }
                for (name, item) in map.iter_mut() {
                    let schema = self.properties.get(name).or_else(|| self.additional_schema());
                    let Some(schema) = schema.filter(|s| s.holds_embedded) else { continue };
                    schema.coerce(meta, source, item, &at.key(name), unknown)?;
                }
            }
            Value::Array(items) => {
                if let Some(schema) = self.items.as_ref().filter(|s| s.holds_embedded) {
                    for (index, item) in items.iter_mut().enumerate() {
                        schema.coerce(meta, source, item, &at.index(index), unknown)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Go prints a number without fraction as a whole one, however it was written: `1.0` is stored as `1`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0);
            if let Some(whole) = whole {
                #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                let whole = whole as i64;
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn invalid(at: &Trail<'_>, name: &str, value: &Value, detail: &str) -> DecodeError {
    let text = format!("{}: Invalid value: {}: {detail}", at.key(name), go_value(value));
    DecodeError { restore: text.clone(), text }
}

fn type_meta(source: Source, map: &mut Map<String, Value>, at: &Trail<'_>) -> Result<(), DecodeError> {
    for name in ["apiVersion", "kind"] {
        let Some(value) = map.get(name).filter(|v| !v.is_string()) else { continue };
        if source != Source::Storage {
            return Err(invalid(at, name, value, "must be a string"));
        }
        map.remove(name);
    }
    Ok(())
}

fn metadata(
    meta: ObjectMeta<'_>,
    source: Source,
    map: &mut Map<String, Value>,
    prefix: &str,
    unknown: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let Some(value) = map.get_mut("metadata") else { return Ok(()) };
    let given = value.clone();
    match crate::decode::decode(meta.types, meta.ty, value) {
        Ok(strict) => {
            let dot = if prefix.is_empty() { "" } else { "." };
            let names = strict.iter().filter_map(|text| text.strip_prefix("unknown field \"")?.strip_suffix('"'));
            unknown.extend(names.map(|name| format!("{prefix}{dot}metadata.{name}")));
            Ok(())
        }
        Err(error) if source != Source::Storage && prefix.is_empty() => Err(error),
        Err(error) if source != Source::Storage => {
            let text = format!("{prefix}.metadata: Invalid value: {}: {}", go_value(&given), error.text);
            Err(DecodeError { restore: text.clone(), text })
        }
        Err(_) => {
            *value = Value::Object(well_formed(meta, given));
            Ok(())
        }
    }
}

/// The fields of metadata that decode one by one.
fn well_formed(meta: ObjectMeta<'_>, given: Value) -> Map<String, Value> {
    let Value::Object(fields) = given else { return Map::new() };
    let mut out = Map::new();
    for (name, value) in fields {
        let mut alone = Value::Object(Map::from_iter([(name, value)]));
        if crate::decode::decode(meta.types, meta.ty, &mut alone).is_ok()
            && let Value::Object(kept) = alone
        {
            out.extend(kept);
        }
    }
    out
}

struct Pruner {
    unknown: Vec<String>,
}

impl Pruner {
    /// No schema at all (inside `additionalProperties: true`) leaves scalars only. `kept` says that the value is an item of a list
    /// that keeps what it does not know.
    fn value(&mut self, value: &mut Value, schema: Option<&Schema>, root: bool, kept: bool, at: &Trail<'_>) {
        let keep = kept || schema.is_some_and(|s| s.preserve_unknown);
        match value {
            Value::Object(map) => {
                let resource = root || schema.is_some_and(|s| s.embedded_resource);
                map.retain(|name, item| {
                    if resource && META_FIELDS.contains(&name.as_str()) {
                        return true;
                    }
                    let at = at.key(name);
                    if let Some(property) = schema.and_then(|s| s.properties.get(name)) {
                        self.value(item, Some(property), false, false, &at);
                        return true;
                    }
                    match schema.and_then(|s| s.additional.as_ref()) {
                        Some(_) => self.value(item, schema.and_then(Schema::additional_schema), false, false, &at),
                        None if keep => {}
                        None => {
                            self.report(&at);
                            return false;
                        }
                    }
                    true
                });
            }
            Value::Array(items) => {
                let below = schema.and_then(|s| s.items.as_deref());
                for (index, item) in items.iter_mut().enumerate().filter(|_| !keep || below.is_some()) {
                    self.value(item, below, false, keep, &at.index(index));
                }
            }
            _ => {}
        }
    }

    fn report(&mut self, at: &Trail<'_>) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push(at.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Field, Map as MapType, Omit, Scalar, Struct, Type};
    use serde_json::json;

    fn object_meta() -> (Types, TypeId) {
        let mut types = Types::default();
        let text = types.add(Type::Scalar(Scalar::String));
        let labels = types.add(Type::Map(MapType { elem: text, atomic: false }));
        let field = |name: &str, ty| Field { name: name.to_owned(), ty, omit: Omit::Empty, ..Field::default() };
        let fields = vec![field("labels", labels), field("name", text)];
        let ty = types.add(Type::Struct(Struct { name: "io.k8s.meta.v1.ObjectMeta".to_owned(), fields, ..Struct::default() }));
        (types, ty)
    }

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object"}}},
                "true": {"type": "object", "additionalProperties": true},
                "list": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {
                    "type": "object", "properties": {"k": {"type": "object", "properties": {}}},
                }},
                "emb": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"x": {"type": "string"}}},
            }},
        }}))
        .unwrap()
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut object = json!({
            "apiVersion": "g/v1", "kind": "T", "metadata": {"name": "n", "odd": 1}, "zz": 1,
            "spec": {
                "a": 7, "b": 1, "l": [{"k": "x"}, {"k": "x", "z": 1}], "m": {"one": {"k": "x", "z": 1}},
                "any": {"free": {"deep": 1}, "known": {"z": 1}}, "true": {"s": 1, "o": {"x": 1}}, "list": [{"free": 1, "k": {"z": 1}}],
                "emb": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "e", "odd": {}}, "x": "1", "y": 1},
            },
        });
        let (types, ty) = object_meta();
        let unknown = schema().decode(ObjectMeta { types: &types, ty }, Source::Request, &mut object).unwrap();
        let wanted = [
            "metadata.odd",
            "spec.any.known.z",
            "spec.b",
            "spec.emb.y",
            "spec.l[1].z",
            "spec.list[0].k.z",
            "spec.m.one.z",
            "spec.true.o.x",
            "zz",
            "spec.emb.metadata.odd",
        ];
        assert_eq!(unknown, wanted.map(|path| format!("unknown field \"{path}\"")));
        assert_eq!(
            object,
            json!({
                "apiVersion": "g/v1", "kind": "T", "metadata": {"name": "n"},
                "spec": {
                    "a": 7, "l": [{"k": "x"}, {"k": "x"}], "m": {"one": {"k": "x"}},
                    "any": {"free": {"deep": 1}, "known": {}}, "true": {"s": 1, "o": {}}, "list": [{"free": 1, "k": {}}],
                    "emb": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "e"}, "x": "1"},
                },
            })
        );
        let again = object.clone();
        assert!(schema().decode(ObjectMeta { types: &types, ty }, Source::Request, &mut object).unwrap().is_empty());
        assert_eq!(object, again);
    }

    #[test]
    fn numbers_without_fraction_are_whole() {
        let (types, ty) = object_meta();
        let schema = Schema::parse(&json!({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}})).unwrap();
        let mut object = json!({"a": 1.0, "b": 1.5});
        schema.decode(ObjectMeta { types: &types, ty }, Source::Request, &mut object).unwrap();
        assert_eq!(object, json!({"a": 1, "b": 1.5}));
    }

    #[test]
    fn embedded_metadata_must_be_well_formed_in_requests_only() {
        let (types, ty) = object_meta();
        let meta = ObjectMeta { types: &types, ty };
        let given = json!({"spec": {"emb": {"kind": 1, "metadata": {"name": "e", "labels": "x"}}}});
        let error = schema().decode(meta, Source::Request, &mut given.clone()).unwrap_err();
        assert_eq!(error.text, "spec.emb.kind: Invalid value: 1: must be a string");
        let given = json!({"spec": {"emb": {"metadata": {"name": "e", "labels": "x"}}}});
        let error = schema().decode(meta, Source::Request, &mut given.clone()).unwrap_err();
        assert!(
            error.text.starts_with("spec.emb.metadata: Invalid value: {\"labels\":\"x\",\"name\":\"e\"}: json: cannot unmarshal"),
            "{error}"
        );
        let mut stored = given.clone();
        schema().decode(meta, Source::Storage, &mut stored).unwrap();
        assert_eq!(stored, json!({"spec": {"emb": {"metadata": {"name": "e"}}}}));
    }
}
