//! Types as OpenAPI schemas. Asking for a reference puts the type, and all it needs, on the list of those to write.

use std::collections::BTreeMap;

use machinery::gvk::GroupVersionKind;
use machinery::schema::{Either, Field, List, Scalar, Struct, Topology, Type, TypeId, Types};
use serde_json::{Map, Value, json};

pub struct Schemas {
    types: &'static Types,
    /// `#/definitions/`
    prefix: &'static str,
    done: BTreeMap<String, Value>,
}

impl Schemas {
    pub fn new(prefix: &'static str) -> Self {
        Self { types: kinds::types(), prefix, done: BTreeMap::new() }
    }

    /// A reference to the type of a kind.
    pub fn kind(&mut self, gvk: &GroupVersionKind) -> Value {
        let Some(ty) = kinds::table().type_of(gvk) else { return json!({"type": "object"}) };
        let reference = self.schema(ty);
        if let Type::Struct(s) = self.types.get(ty)
            && let Some(schema) = self.done.get_mut(&s.name)
        {
            let own = json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
            match schema.get_mut("x-kubernetes-group-version-kind").and_then(Value::as_array_mut) {
                Some(list) if list.contains(&own) => {}
                Some(list) => list.push(own),
                None => schema["x-kubernetes-group-version-kind"] = json!([own]),
            }
        }
        reference
    }

    pub fn finish(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    fn schema(&mut self, ty: TypeId) -> Value {
        let types = self.types;
        match types.get(ty) {
            Type::Scalar(scalar) => self::scalar(*scalar),
            Type::Any | Type::Either(Either::SchemaOrArray(_) | Either::SchemaOrBool(_) | Either::SchemaOrStrings(_)) => json!({}),
            Type::List(List { elem, .. }) => {
                let items = self.schema(*elem);
                json!({"type": "array", "items": items})
            }
            Type::Map(map) => {
                let values = self.schema(map.elem);
                json!({"type": "object", "additionalProperties": values})
            }
            Type::Struct(s) if s.name.is_empty() => self.object(s),
            Type::Struct(s) => {
                if !self.done.contains_key(&s.name) {
                    // Known before its fields are looked at: types may contain themselves.
                    self.done.insert(s.name.clone(), Value::Null);
                    let object = self.object(s);
                    self.done.insert(s.name.clone(), object);
                }
                json!({"$ref": format!("{}{}", self.prefix, s.name)})
            }
        }
    }

    fn object(&mut self, s: &Struct) -> Value {
        let mut properties = Map::new();
        let mut required: Vec<&str> = Vec::new();
        for field in &s.fields {
            properties.insert(field.name.clone(), self.property(field));
            if field.required {
                required.push(&field.name);
            }
        }
        let mut object = json!({"type": "object"});
        if !properties.is_empty() {
            object["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            required.sort_unstable();
            object["required"] = json!(required);
        }
        if s.atomic {
            object["x-kubernetes-map-type"] = json!("atomic");
        }
        object
    }

    fn property(&mut self, field: &Field) -> Value {
        let mut schema = self.schema(field.ty);
        let mut extra = Map::new();
        if let Some(default) = &field.default {
            extra.insert("default".into(), default.clone());
        }
        let strategies: Vec<&str> =
            [(field.patch_retain_keys, "retainKeys"), (field.patch_merge, "merge")].iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
        if !strategies.is_empty() {
            extra.insert("x-kubernetes-patch-strategy".into(), json!(strategies.join(",")));
        }
        if !field.merge_key.is_empty() {
            extra.insert("x-kubernetes-patch-merge-key".into(), json!(field.merge_key));
        }
        match self.types.get(field.ty) {
            Type::List(list) => topology(list, &mut extra),
            Type::Map(map) if map.atomic => {
                extra.insert("x-kubernetes-map-type".into(), json!("atomic"));
            }
            _ => {}
        }
        if extra.is_empty() {
            return schema;
        }
        if schema.get("$ref").is_some() {
            // Nothing may stand beside a reference.
            schema = json!({"allOf": [schema]});
        }
        if let Some(map) = schema.as_object_mut() {
            map.extend(extra);
        }
        schema
    }
}

fn topology(list: &List, extra: &mut Map<String, Value>) {
    let kind = match &list.topology {
        Topology::Atomic => "atomic",
        Topology::Set => "set",
        Topology::Map(keys) => {
            extra.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            "map"
        }
    };
    extra.insert("x-kubernetes-list-type".into(), json!(kind));
}

fn scalar(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Duration => json!({"type": "string"}),
        Scalar::Bytes => json!({"type": "string", "format": "byte"}),
        Scalar::Bool => json!({"type": "boolean"}),
        Scalar::Int32 | Scalar::Uint32 => json!({"type": "integer", "format": "int32"}),
        Scalar::Int64 | Scalar::Uint64 => json!({"type": "integer", "format": "int64"}),
        Scalar::Float32 => json!({"type": "number", "format": "float"}),
        Scalar::Float64 => json!({"type": "number", "format": "double"}),
        Scalar::Quantity => json!({"type": "string"}),
        Scalar::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        Scalar::Time | Scalar::MicroTime => json!({"type": "string", "format": "date-time"}),
        Scalar::FieldsV1 => json!({"type": "object"}),
    }
}
