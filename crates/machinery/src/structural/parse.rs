//! From the tree of a definition to a [`Schema`]. Lenient: what is not understood is left out, because `kinds` has judged the
//! definition before. Bounded in depth and in size.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pattern::Patterns;
use super::{Additional, Checks, Kind, ListType, Rule, Schema};

/// The keywords that say what a value must be like, beside its type and what lies in it.
pub const CHECKS: [&str; 20] = [
    "format",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "multipleOf",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "maxProperties",
    "minProperties",
    "required",
    "enum",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

/// Deeper than any decoded tree: JSON may nest 120 levels, and a schema takes two for each of its own.
const DEPTH_MAX: usize = 128;
/// More than fits into a stored definition.
const SCHEMAS_MAX: usize = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the schema nests more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("the schema has more than {SCHEMAS_MAX} parts")]
    TooLarge,
}

impl Schema {
    /// Parses `openAPIV3Schema`. A value that is no object is a schema that says nothing.
    pub fn parse(tree: &Value) -> Result<Self, ParseError> {
        Parser { left: SCHEMAS_MAX, patterns: Patterns::new() }.schema(tree, 0)
    }
}

/// What is left of the bounds, and the patterns seen so far.
struct Parser {
    left: usize,
    patterns: Patterns,
}

impl Parser {
    fn schema(&mut self, tree: &Value, depth: usize) -> Result<Schema, ParseError> {
        if depth > DEPTH_MAX {
            return Err(ParseError::TooDeep);
        }
        self.left = self.left.checked_sub(1).ok_or(ParseError::TooLarge)?;
        let flag = |key: &str| tree.get(key).and_then(Value::as_bool).unwrap_or(false);
        let mut properties = BTreeMap::new();
        for (name, below) in tree.get("properties").and_then(Value::as_object).into_iter().flatten() {
            properties.insert(name.clone(), self.schema(below, depth + 1)?);
        }
        let additional = match tree.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
            Some(below) => Some(Additional::Schema(Box::new(self.schema(below, depth + 1)?))),
        };
        let items = self.boxed(tree, "items", depth)?;
        let embedded_resource = flag("x-kubernetes-embedded-resource");
        let below = properties.values().any(|p| p.holds_embedded) || items.as_ref().is_some_and(|i| i.holds_embedded);
        let in_values = matches!(&additional, Some(Additional::Schema(values)) if values.holds_embedded);
        Ok(Schema {
            holds_embedded: embedded_resource || below || in_values,
            kind: kind(text(tree, "type")),
            nullable: flag("nullable"),
            default: tree.get("default").filter(|v| !v.is_null()).cloned(),
            properties,
            additional,
            items,
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource,
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: match text(tree, "x-kubernetes-list-type") {
                "atomic" => Some(ListType::Atomic),
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                _ => None,
            },
            list_map_keys: texts(tree, "x-kubernetes-list-map-keys"),
            atomic: text(tree, "x-kubernetes-map-type") == "atomic",
            rules: list(tree, "x-kubernetes-validations").iter().map(rule).collect(),
            checks: self.checks(tree, depth)?,
        })
    }

    fn boxed(&mut self, tree: &Value, key: &str, depth: usize) -> Result<Option<Box<Schema>>, ParseError> {
        match tree.get(key) {
            Some(below @ Value::Object(_)) => Ok(Some(Box::new(self.schema(below, depth + 1)?))),
            _ => Ok(None),
        }
    }

    fn all(&mut self, tree: &Value, key: &str, depth: usize) -> Result<Vec<Schema>, ParseError> {
        list(tree, key).iter().map(|below| self.schema(below, depth + 1)).collect()
    }

    fn checks(&mut self, tree: &Value, depth: usize) -> Result<Option<Box<Checks>>, ParseError> {
        let Some(map) = tree.as_object().filter(|map| CHECKS.iter().any(|key| map.contains_key(*key))) else { return Ok(None) };
        let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let count = |key: &str| map.get(key).and_then(Value::as_i64);
        Ok(Some(Box::new(Checks {
            format: text(tree, "format").to_owned(),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: Some(text(tree, "pattern")).filter(|p| !p.is_empty()).map(|p| self.patterns.get(p)),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            unique_items: flag("uniqueItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(tree, "required"),
            enumeration: list(tree, "enum").to_vec(),
            all_of: self.all(tree, "allOf", depth)?,
            any_of: self.all(tree, "anyOf", depth)?,
            one_of: self.all(tree, "oneOf", depth)?,
            not: self.boxed(tree, "not", depth)?,
        })))
    }
}

fn text<'a>(tree: &'a Value, key: &str) -> &'a str {
    tree.get(key).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(tree: &'a Value, key: &str) -> &'a [Value] {
    tree.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(tree: &Value, key: &str) -> Vec<String> {
    list(tree, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn kind(name: &str) -> Option<Kind> {
    [Kind::Array, Kind::Boolean, Kind::Integer, Kind::Number, Kind::Object, Kind::String].into_iter().find(|k| k.name() == name)
}

fn rule(tree: &Value) -> Rule {
    let of = |key: &str| text(tree, key).to_owned();
    Rule {
        rule: of("rule"),
        message: of("message"),
        message_expression: of("messageExpression"),
        reason: of("reason"),
        field_path: of("fieldPath"),
        optional_old_self: tree.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keywords_are_read_and_anything_else_is_left_out() {
        let schema = Schema::parse(&json!({
            "type": "object", "required": ["a"], "zz": 1,
            "properties": {
                "a": {"type": "string", "pattern": "^x$", "maxLength": 3, "default": "x", "nullable": true},
                "b": {"x-kubernetes-int-or-string": true},
                "c": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
                "d": {"type": "object", "additionalProperties": {"type": "number"}},
            },
        }))
        .unwrap();
        assert_eq!(schema.kind, Some(Kind::Object));
        assert_eq!(schema.checks.as_ref().unwrap().required, ["a"]);
        let a = schema.at("a").unwrap();
        assert_eq!((a.nullable, &a.default), (true, &Some(json!("x"))));
        assert!(a.checks.as_ref().unwrap().pattern.as_ref().unwrap().matches("x").unwrap());
        assert!(schema.at("b").unwrap().int_or_string);
        assert_eq!(schema.at("c").unwrap().list_type, Some(ListType::Set));
        assert_eq!(schema.at("d").unwrap().additional_schema().unwrap().kind, Some(Kind::Number));
    }

    #[test]
    fn hostile_schemas_are_refused_without_harm() {
        let mut deep = json!({});
        for _ in 0..300 {
            deep = json!({"not": deep});
        }
        assert_eq!(Schema::parse(&deep).unwrap_err(), ParseError::TooDeep);
        for odd in [json!(null), json!([]), json!("x"), json!({"type": 1, "properties": [], "items": 7, "enum": {}, "maxLength": "a"})] {
            assert!(Schema::parse(&odd).is_ok());
        }
        let greedy = json!({"pattern": "((((a{100}){100}){100}){100}){100}"});
        assert!(Schema::parse(&greedy).unwrap().checks.unwrap().pattern.unwrap().matches("a").is_err());
    }
}
