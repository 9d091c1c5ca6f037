//! Parts of a definition as Go marshals its internal types, which have no JSON names: errors show values so.

use std::fmt::Write as _;

use machinery::field::go_json;
use serde_json::Value;

use super::spec::Spec;
use crate::validate::tree::opt;

/// What a field holds.
#[derive(Clone, Copy)]
enum Form {
    /// A string, empty where absent.
    Text,
    Flag,
    /// A pointer, a list or a map of plain values: null where absent.
    Plain,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrArray,
    SchemaOrBool,
    Dependencies,
    Docs,
    Rules,
}

use Form::{Dependencies, Docs, Flag, Plain, Rules, Schema, SchemaMap, SchemaOrArray, SchemaOrBool, Schemas, Text};

/// The fields of `JSONSchemaProps`, in Go's order, by their names in Go and in JSON.
const SCHEMA: [(&str, &str, Form); 43] = [
    ("ID", "id", Text),
    ("Schema", "$schema", Text),
    ("Ref", "$ref", Plain),
    ("Description", "description", Text),
    ("Type", "type", Text),
    ("Nullable", "nullable", Flag),
    ("Format", "format", Text),
    ("Title", "title", Text),
    ("Default", "default", Plain),
    ("Maximum", "maximum", Plain),
    ("ExclusiveMaximum", "exclusiveMaximum", Flag),
    ("Minimum", "minimum", Plain),
    ("ExclusiveMinimum", "exclusiveMinimum", Flag),
    ("MaxLength", "maxLength", Plain),
    ("MinLength", "minLength", Plain),
    ("Pattern", "pattern", Text),
    ("MaxItems", "maxItems", Plain),
    ("MinItems", "minItems", Plain),
    ("UniqueItems", "uniqueItems", Flag),
    ("MultipleOf", "multipleOf", Plain),
    ("Enum", "enum", Plain),
    ("MaxProperties", "maxProperties", Plain),
    ("MinProperties", "minProperties", Plain),
    ("Required", "required", Plain),
    ("Items", "items", SchemaOrArray),
    ("AllOf", "allOf", Schemas),
    ("OneOf", "oneOf", Schemas),
    ("AnyOf", "anyOf", Schemas),
    ("Not", "not", Schema),
    ("Properties", "properties", SchemaMap),
    ("AdditionalProperties", "additionalProperties", SchemaOrBool),
    ("PatternProperties", "patternProperties", SchemaMap),
    ("Dependencies", "dependencies", Dependencies),
    ("AdditionalItems", "additionalItems", SchemaOrBool),
    ("Definitions", "definitions", SchemaMap),
    ("ExternalDocs", "externalDocs", Docs),
    ("Example", "example", Plain),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Plain),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Plain),
    ("XListType", "x-kubernetes-list-type", Plain),
    ("XMapType", "x-kubernetes-map-type", Plain),
];

const RULE: [(&str, &str, Form); 6] = [
    ("Rule", "rule", Text),
    ("Message", "message", Text),
    ("MessageExpression", "messageExpression", Text),
    ("Reason", "reason", Plain),
    ("FieldPath", "fieldPath", Text),
    ("OptionalOldSelf", "optionalOldSelf", Plain),
];

/// Go's names of what a schema sets, in Go's order.
pub fn set_fields(schema: &Value) -> impl Iterator<Item = &'static str> {
    let all = SCHEMA.iter().map(|(go, json, _)| (*go, *json)).chain([("XValidations", "x-kubernetes-validations")]);
    all.filter(|(_, json)| {
        opt(schema, json)
            .is_some_and(|v| !matches!(v, Value::Bool(false)) && v.as_str() != Some("") && v.as_array().is_none_or(|a| !a.is_empty()))
    })
    .map(|(go, _)| go)
}

pub fn schema(value: &Value) -> String {
    let mut out = String::new();
    fields(value, &SCHEMA, &mut out);
    out.pop();
    out.push_str(",\"XValidations\":");
    form(opt(value, "x-kubernetes-validations"), Rules, &mut out);
    out.push('}');
    out
}

/// One of `x-kubernetes-validations`.
pub fn rule(value: &Value) -> String {
    let mut out = String::new();
    fields(value, &RULE, &mut out);
    out
}

/// `spec.versions`, without what they share.
pub fn versions(spec: &Spec<'_>) -> String {
    let each = spec.versions.iter().map(|version| {
        let mut out = String::new();
        let plain = [
            ("Name", "name", Text),
            ("Served", "served", Flag),
            ("Storage", "storage", Flag),
            ("Deprecated", "deprecated", Flag),
            ("DeprecationWarning", "deprecationWarning", Plain),
        ];
        fields(version, &plain, &mut out);
        out.pop();
        let own = |key| spec.own(version, key);
        let schema = own("schema").map(|v| {
            let inner = opt(v, "openAPIV3Schema").map_or_else(|| "null".to_owned(), schema);
            format!("{{\"OpenAPIV3Schema\":{inner}}}")
        });
        let parts = [
            ("Schema", schema),
            ("Subresources", own("subresources").map(subresources)),
            ("AdditionalPrinterColumns", own("additionalPrinterColumns").map(columns)),
            ("SelectableFields", own("selectableFields").map(|v| each_of(v, &[("JSONPath", "jsonPath", Text)]))),
        ];
        for (name, part) in parts {
            let _ = write!(out, ",\"{name}\":{}", part.as_deref().unwrap_or("null"));
        }
        out.push('}');
        out
    });
    format!("[{}]", each.collect::<Vec<_>>().join(","))
}

fn subresources(value: &Value) -> String {
    let scale = opt(value, "scale").map_or_else(
        || "null".to_owned(),
        |scale| {
            let mut out = String::new();
            let all = [
                ("SpecReplicasPath", "specReplicasPath", Text),
                ("StatusReplicasPath", "statusReplicasPath", Text),
                ("LabelSelectorPath", "labelSelectorPath", Plain),
            ];
            fields(scale, &all, &mut out);
            out
        },
    );
    let status = if opt(value, "status").is_some() { "{}" } else { "null" };
    format!("{{\"Status\":{status},\"Scale\":{scale}}}")
}

fn columns(value: &Value) -> String {
    let mut out = each_of(
        value,
        &[
            ("Name", "name", Text),
            ("Type", "type", Text),
            ("Format", "format", Text),
            ("Description", "description", Text),
            ("Priority", "priority", Plain),
            ("JSONPath", "jsonPath", Text),
        ],
    );
    // A priority is a number, not a pointer to one.
    out = out.replace("\"Priority\":null", "\"Priority\":0");
    out
}

fn each_of(value: &Value, all: &[(&str, &str, Form)]) -> String {
    let each = value.as_array().into_iter().flatten().map(|item| {
        let mut out = String::new();
        fields(item, all, &mut out);
        out
    });
    format!("[{}]", each.collect::<Vec<_>>().join(","))
}

fn fields(value: &Value, all: &[(&str, &str, Form)], out: &mut String) {
    out.push('{');
    for (index, (go, json, of)) in all.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}\"{go}\":");
        form(opt(value, json), *of, out);
    }
    out.push('}');
}

fn form(value: Option<&Value>, of: Form, out: &mut String) {
    let text = match (of, value) {
        (Text, None) => "\"\"".to_owned(),
        (Flag, None) => "false".to_owned(),
        (_, None) => "null".to_owned(),
        (Text | Flag | Plain, Some(v)) => go_json(&v.to_string()).into_owned(),
        (Schema, Some(v)) => schema(v),
        (Schemas, Some(v)) => format!("[{}]", v.as_array().into_iter().flatten().map(schema).collect::<Vec<_>>().join(",")),
        (SchemaMap, Some(v)) => map_of(v, schema),
        (SchemaOrArray, Some(v)) => match v {
            Value::Array(_) => {
                let mut inner = String::new();
                form(Some(v), Schemas, &mut inner);
                format!("{{\"Schema\":null,\"JSONSchemas\":{inner}}}")
            }
            one => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(one)),
        },
        (SchemaOrBool, Some(Value::Bool(allows))) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
        (SchemaOrBool, Some(v)) => format!("{{\"Allows\":true,\"Schema\":{}}}", schema(v)),
        (Dependencies, Some(v)) => map_of(v, |item| match item {
            Value::Array(_) => format!("{{\"Schema\":null,\"Property\":{item}}}"),
            one => format!("{{\"Schema\":{},\"Property\":null}}", schema(one)),
        }),
        (Docs, Some(v)) => {
            let mut inner = String::new();
            fields(v, &[("Description", "description", Text), ("URL", "url", Text)], &mut inner);
            inner
        }
        (Rules, Some(v)) => each_of(v, &RULE),
    };
    out.push_str(&text);
}

fn map_of(value: &Value, show: impl Fn(&Value) -> String) -> String {
    let each = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, item)| format!("{}:{}", go_json(&Value::from(name.as_str()).to_string()), show(item)));
    format!("{{{}}}", each.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_show_every_field_of_the_internal_type() {
        let definition = json!({"spec": {"versions": [{"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        assert_eq!(
            versions(&Spec::of(&definition)),
            "[{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\
             \"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]"
        );
    }

    #[test]
    fn schemas_are_json_again() {
        let text = schema(&json!({
            "type": "object", "items": {"type": "string"}, "additionalProperties": true, "properties": {"a": {"not": {}}},
            "x-kubernetes-validations": [{"rule": "true"}],
        }));
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["Items"]["Schema"]["Type"], json!("string"));
        assert_eq!(parsed["AdditionalProperties"]["Allows"], json!(true));
        assert_eq!(parsed["XValidations"][0]["Rule"], json!("true"));
        assert_eq!(parsed["Properties"]["a"]["Not"]["MaxItems"], Value::Null);
        assert_eq!(
            set_fields(&json!({"type": "object", "nullable": false, "x-kubernetes-validations": [{}]})).collect::<Vec<_>>(),
            ["Type", "XValidations"]
        );
    }
}
