//! Types as OpenAPI schemas. Asking for a reference puts the type, and all it needs, on the list of those to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use descriptions::Descriptions;
use machinery::gvk::GroupVersionKind;
use machinery::schema::{Either, Field, List, Omit, Scalar, Struct, Topology, Type, TypeId, Types};
use serde_json::{Map, Value, json};

use super::paths::Dialect;

/// No type of ours, so it is spelled out.
pub const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
/// All objects and lists share the words for their first fields.
const ANY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

pub struct Schemas {
    types: &'static Types,
    dialect: Dialect,
    words: Arc<Descriptions>,
    done: BTreeMap<String, Value>,
    /// Names of kinds that are no built-in types.
    provided: BTreeMap<GroupVersionKind, String>,
}

impl Schemas {
    pub fn new(dialect: Dialect, words: Arc<Descriptions>) -> Self {
        Self { types: kinds::types(), dialect, words, done: BTreeMap::new(), provided: BTreeMap::new() }
    }

    /// Adds a definition that does not come from built-in types. Answers the reference to it.
    pub fn provide(&mut self, gvk: &GroupVersionKind, name: &str, schema: Value) -> Value {
        self.provided.insert(gvk.clone(), name.to_owned());
        self.done.insert(name.to_owned(), schema);
        json!({"$ref": format!("{}{name}", self.dialect.prefix())})
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Upstream's words on a field of a type.
    pub fn words_of(&self, type_name: &str, field: &str) -> Option<String> {
        self.words.of_field(type_name, field).map(str::to_owned)
    }

    /// A path that is no resource's, with the type it answers; an empty name: text.
    pub fn root(&mut self, description: &str, identifier: &str, tag: &str, answers: &str) -> Value {
        let schema = match answers {
            "" => json!({"type": "string"}),
            VERSION => self.refer(VERSION, |_| version()),
            list => {
                let reference = self.named(list);
                if let Some(schema) = self.done.get_mut(list) {
                    let kind = list.rsplit('.').next().unwrap_or_default();
                    schema["x-kubernetes-group-version-kind"] = json!([{"group": "", "version": "v1", "kind": kind}]);
                }
                reference
            }
        };
        let types: &[&str] = match answers {
            "" | VERSION => &["application/json"],
            _ => &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"],
        };
        let mut get = json!({"description": description, "operationId": identifier, "tags": [tag]});
        match self.dialect {
            Dialect::V2 => {
                get["responses"] = json!({"200": {"description": "OK", "schema": schema}, "401": {"description": "Unauthorized"}});
                (get["produces"], get["schemes"], get["consumes"]) = (json!(types), json!(["https"]), json!(types));
            }
            Dialect::V3 => {
                let content: Map<String, Value> = types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
                get["responses"] = json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}});
            }
        }
        json!({"get": get})
    }

    /// The field with an object's or a list's metadata.
    pub fn metadata(&mut self, type_name: &str, field: &str) -> Value {
        let reference = self.named(&super::custom::meta(type_name));
        let about = self.words.of_field(ANY, field).unwrap_or_default();
        // Beside a reference nothing may stand but in version 2, where it is ignored.
        match self.dialect {
            Dialect::V2 => json!({"description": about, "$ref": reference["$ref"]}),
            Dialect::V3 => json!({"description": about, "allOf": [reference]}),
        }
    }

    /// The field `apiVersion` or `kind`.
    pub fn word(&self, field: &str) -> Value {
        json!({"description": self.words.of_field(ANY, field).unwrap_or_default(), "type": "string"})
    }

    /// A reference to the type of a kind.
    pub fn kind(&mut self, gvk: &GroupVersionKind) -> Value {
        if let Some(name) = self.provided.get(gvk) {
            return json!({"$ref": format!("{}{name}", self.dialect.prefix())});
        }
        let Some(ty) = kinds::table().type_of(gvk) else { return json!({"type": "object"}) };
        let reference = self.schema(ty, "");
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

    /// A reference to a type by its name.
    pub fn named(&mut self, name: &str) -> Value {
        match self.types.named(name) {
            Some(ty) => self.schema(ty, ""),
            None => self.refer(name, |_| json!({"type": "object"})),
        }
    }

    pub fn finish(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    /// `within` is the definition that holds the field.
    fn schema(&mut self, ty: TypeId, within: &str) -> Value {
        let types = self.types;
        match types.get(ty) {
            Type::Scalar(scalar) => match (named(*scalar), self::scalar(*scalar, self.dialect)) {
                (Some(name), schema) => self.refer(name, |_| schema),
                (None, schema) => schema,
            },
            // Custom resource definitions hold JSON, everybody else objects.
            Type::Any if within.contains(".apiextensions.") => self.refer(&apiextensions("JSON"), |_| json!({})),
            Type::Any => self.refer("io.k8s.apimachinery.pkg.runtime.RawExtension", |_| json!({"type": "object"})),
            Type::Either(either) => {
                let (name, schema) = match either {
                    Either::SchemaOrArray(schema) => ("JSONSchemaPropsOrArray", schema),
                    Either::SchemaOrBool(schema) => ("JSONSchemaPropsOrBool", schema),
                    Either::SchemaOrStrings(schema) => ("JSONSchemaPropsOrStringArray", schema),
                };
                self.schema(*schema, within);
                self.refer(&apiextensions(name), |_| json!({}))
            }
            Type::List(List { elem, .. }) => {
                let items = self.schema(*elem, within);
                json!({"type": "array", "items": items})
            }
            Type::Map(map) => {
                let values = self.schema(map.elem, within);
                json!({"type": "object", "additionalProperties": values})
            }
            Type::Struct(s) if s.name.is_empty() => self.object(s),
            Type::Struct(s) => self.refer(&s.name, |schemas| schemas.object(s)),
        }
    }

    /// A reference to a definition, which is made where it is not there yet.
    fn refer(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.done.contains_key(name) {
            // Known before its fields are looked at: types may contain themselves.
            self.done.insert(name.to_owned(), Value::Null);
            let mut schema = make(self);
            if let Some(text) = self.words.of_type(name) {
                schema["description"] = json!(text);
            } else if let Some(kind) = name.rsplit('.').next().and_then(|n| n.strip_suffix("List")) {
                schema["description"] = json!(format!("{kind}List is a list of {kind} objects."));
            }
            self.done.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("{}{name}", self.dialect.prefix())})
    }

    fn object(&mut self, s: &Struct) -> Value {
        let mut properties = Map::new();
        let mut required: Vec<&str> = Vec::new();
        for field in &s.fields {
            properties.insert(field.name.clone(), self.property(s, field));
            if field.required {
                required.push(&field.name);
            }
        }
        let mut object = json!({"type": "object"});
        if !properties.is_empty() {
            object["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        if s.atomic {
            object["x-kubernetes-map-type"] = json!("atomic");
        }
        object
    }

    /// The words for a field; all objects and lists share those of their first fields.
    fn words_for(&self, s: &Struct, field: &Field) -> Option<&str> {
        let own = self.words.of_field(&s.name, &field.name);
        own.or_else(|| {
            if matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata") { self.words.of_field(ANY, &field.name) } else { None }
        })
    }

    /// What upstream publishes as a field's default: its own, or the zero of what Go always writes. Version 2 has none.
    fn default_of(&self, field: &Field) -> Option<Value> {
        if self.dialect == Dialect::V2 {
            return None;
        }
        if field.default.is_some() || field.pointer {
            return field.default.clone();
        }
        match self.types.get(field.ty) {
            Type::Struct(_) => Some(json!({})),
            Type::Scalar(_) if field.omit != Omit::Never => None,
            Type::Scalar(Scalar::String) => Some(json!("")),
            Type::Scalar(Scalar::Bool) => Some(json!(false)),
            Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 | Scalar::Float32 | Scalar::Float64) => {
                Some(json!(0))
            }
            _ => None,
        }
    }

    fn property(&mut self, s: &Struct, field: &Field) -> Value {
        let mut schema = self.schema(field.ty, &s.name);
        let mut extra = Map::new();
        let mut description = self.words_for(s, field).unwrap_or_default().to_owned();
        if let Some(default) = self.default_of(field) {
            extra.insert("default".into(), default);
        }
        if self.dialect == Dialect::V3
            && let Some(values) = kinds::enums::of(&s.name, &field.name)
        {
            let lines: Vec<String> = values.iter().map(|v| format!(" - `{}`", machinery::field::go_quote(v))).collect();
            description = format!("{description}\n\nPossible enum values:\n{}", lines.join("\n"));
            let below = ["items", "additionalProperties"].into_iter().find(|key| schema.get(*key).is_some());
            let place = match below {
                Some(key) => &mut schema[key],
                None => &mut schema,
            };
            place["enum"] = json!(values);
        }
        if !description.is_empty() {
            extra.insert("description".into(), json!(description));
        }
        let strategies: Vec<&str> =
            [(field.patch_merge, "merge"), (field.patch_retain_keys, "retainKeys")].iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
        if !strategies.is_empty() {
            extra.insert("x-kubernetes-patch-strategy".into(), json!(strategies.join(",")));
        }
        if !field.merge_key.is_empty() {
            extra.insert("x-kubernetes-patch-merge-key".into(), json!(field.merge_key));
        }
        match self.types.get(field.ty) {
            // Lists of objects say nothing of it.
            Type::List(_) if field.name == "items" && s.name.ends_with("List") => {}
            Type::List(list) => topology(list, &mut extra),
            Type::Map(map) if map.atomic => {
                extra.insert("x-kubernetes-map-type".into(), json!("atomic"));
            }
            _ => {}
        }
        if extra.is_empty() {
            return schema;
        }
        if schema.get("$ref").is_some() && self.dialect == Dialect::V3 {
            // Nothing may stand beside a reference there.
            schema = json!({"allOf": [schema]});
        }
        if let Some(map) = schema.as_object_mut() {
            map.extend(extra);
        }
        schema
    }
}

/// The server's version.
fn version() -> Value {
    const ALWAYS: [&str; 9] =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    const SOMETIMES: [&str; 4] = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    let always = ALWAYS.iter().map(|name| ((*name).to_owned(), json!({"type": "string", "default": ""})));
    let sometimes = SOMETIMES.iter().map(|name| ((*name).to_owned(), json!({"type": "string"})));
    json!({"type": "object", "properties": always.chain(sometimes).collect::<Map<_, _>>(), "required": ALWAYS})
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

fn apiextensions(name: &str) -> String {
    format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}")
}

/// Scalars that are definitions of their own.
fn named(scalar: Scalar) -> Option<&'static str> {
    Some(match scalar {
        Scalar::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
        Scalar::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        Scalar::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        Scalar::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        Scalar::Duration => "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
        Scalar::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        _ => return None,
    })
}

fn scalar(scalar: Scalar, dialect: Dialect) -> Value {
    match (scalar, dialect) {
        (Scalar::String | Scalar::Duration, _) => json!({"type": "string"}),
        (Scalar::Bytes, _) => json!({"type": "string", "format": "byte"}),
        (Scalar::Bool, _) => json!({"type": "boolean"}),
        (Scalar::Int32 | Scalar::Uint32, _) => json!({"type": "integer", "format": "int32"}),
        (Scalar::Int64 | Scalar::Uint64, _) => json!({"type": "integer", "format": "int64"}),
        (Scalar::Float32, _) => json!({"type": "number", "format": "float"}),
        (Scalar::Float64, _) => json!({"type": "number", "format": "double"}),
        (Scalar::Quantity, Dialect::V2) => json!({"type": "string"}),
        (Scalar::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Scalar::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Scalar::IntOrString, Dialect::V3) => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        (Scalar::Time | Scalar::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Scalar::FieldsV1, _) => json!({"type": "object"}),
    }
}
