//! A schema as the types expressions are checked against, with how large each part can get. Upstream's `SchemaDeclType`.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{ListSemantics, ObjectType, Type};
use machinery::structural::{Kind, ListType, Schema};

/// The most bytes a request may have.
const REQUEST_MAX: u64 = 3 * 1024 * 1024;
/// The least and the most bytes some values take in JSON.
const DATE_SIZE: u64 = 12;
const DATE_TIME_SIZE_MIN: u64 = 21;
const DURATION_SIZE_MIN: u64 = 3;
const TIME_SIZE_MAX: u64 = 32;
const STRING_SIZE_MIN: u64 = 2;

/// What is declared of a place in the schema.
pub struct Decl {
    pub of: Type,
    /// The least bytes a value takes in JSON.
    size_min: u64,
    /// The most characters, items or entries.
    elements_max: u64,
    parts: Parts,
}

enum Parts {
    None,
    Items(Box<Decl>),
    Values(Box<Decl>),
    /// By the names expressions use.
    Fields(BTreeMap<String, Decl>),
}

impl Decl {
    /// What expressions may know of a schema; `None` where they know nothing. `root` says that it is a resource's.
    pub fn of(schema: &Schema, root: bool) -> Option<Self> {
        declare(schema, root, "selfType")
    }

    /// The most elements of what a path leads to; it begins with the variable.
    pub fn elements_max(&self, path: &[String]) -> Option<u64> {
        let mut at = self;
        let mut key = false;
        for name in path.get(1..)? {
            if key {
                return None;
            }
            at = match (&at.parts, name.as_str()) {
                (Parts::Items(below), "@items") | (Parts::Values(below), "@values" | "@items") => below,
                (Parts::Values(_), "@keys") => {
                    key = true;
                    continue;
                }
                (Parts::Fields(fields), name) => fields.get(name)?,
                _ => return None,
            };
        }
        // Keys are strings of any length.
        Some(if key { REQUEST_MAX - 2 } else { at.elements_max })
    }

    /// How many values of this kind a request can hold, where nothing else bounds them.
    pub fn cardinality_max(&self) -> u64 {
        REQUEST_MAX / (self.size_min + 1)
    }

    fn scalar(of: Type, size_min: u64, elements_max: u64) -> Option<Self> {
        Some(Self { of, size_min, elements_max, parts: Parts::None })
    }
}

fn bound(limit: Option<i64>) -> Option<u64> {
    limit.map(|n| u64::try_from(n).unwrap_or(0))
}

fn declare(schema: &Schema, root: bool, name: &str) -> Option<Decl> {
    let checks = schema.checks.as_deref();
    let max_length = bound(checks.and_then(|c| c.max_length));
    if schema.int_or_string {
        return Decl::scalar(Type::Dyn, 1, max_length.map_or(REQUEST_MAX - 2, |n| n.saturating_mul(4)));
    }
    match schema.kind? {
        Kind::Boolean => Decl::scalar(Type::Bool, 4, 0),
        Kind::Integer => Decl::scalar(Type::Int, 1, 0),
        Kind::Number => Decl::scalar(Type::Double, 1, 0),
        Kind::String => string(schema, max_length),
        Kind::Array => {
            let items = schema.items.as_deref()?;
            let below = declare(items, items.embedded_resource, &format!("{name}.@idx"))?;
            let semantics = match schema.list_type {
                Some(ListType::Set) => ListSemantics::Set,
                Some(ListType::Map) => ListSemantics::Map(schema.list_map_keys.clone()),
                Some(ListType::Atomic) | None => ListSemantics::Atomic,
            };
            let most = bound(checks.and_then(|c| c.max_items)).unwrap_or((REQUEST_MAX - 2) / (below.size_min + 1));
            let of = Type::list_of(below.of.clone(), semantics);
            Some(Decl { of, size_min: 2, elements_max: most, parts: Parts::Items(Box::new(below)) })
        }
        Kind::Object => match schema.additional_schema() {
            Some(values) if !root => {
                let below = declare(values, values.embedded_resource, &format!("{name}.@elem"))?;
                let most = bound(checks.and_then(|c| c.max_properties)).unwrap_or((REQUEST_MAX - 2) / (below.size_min + 6));
                let of = Type::map(Type::String, below.of.clone());
                Some(Decl { of, size_min: 2, elements_max: most, parts: Parts::Values(Box::new(below)) })
            }
            _ => Some(object(schema, root, name)),
        },
    }
}

fn string(schema: &Schema, max_length: Option<u64>) -> Option<Decl> {
    let checks = schema.checks.as_deref();
    let whole = REQUEST_MAX - 2;
    match checks.map_or("", |c| c.format.as_str()) {
        "byte" => return Decl::scalar(Type::Bytes, STRING_SIZE_MIN, max_length.unwrap_or(whole)),
        "duration" => return Decl::scalar(Type::Duration, DURATION_SIZE_MIN, TIME_SIZE_MAX),
        "date" => return Decl::scalar(Type::Timestamp, DATE_SIZE, DATE_SIZE),
        "date-time" => return Decl::scalar(Type::Timestamp, DATE_TIME_SIZE_MIN, TIME_SIZE_MAX),
        _ => {}
    }
    let longest = checks.filter(|c| !c.enumeration.is_empty());
    let longest = longest.map(|c| c.enumeration.iter().filter_map(|v| v.as_str()).map(str::len).max().unwrap_or(0) as u64);
    let most = max_length.map(|n| n.saturating_mul(4)).or(longest).unwrap_or(whole);
    Decl::scalar(Type::String, STRING_SIZE_MIN, most)
}

fn object(schema: &Schema, root: bool, name: &str) -> Decl {
    let required = schema.checks.as_ref().map_or(&[][..], |c| c.required.as_slice());
    let mut fields = BTreeMap::new();
    let mut of = ObjectType::new(name);
    // `{}`, and what must be there.
    let mut size_min = 2;
    let mut add = |property: &str, below: Option<Decl>, needed: bool| {
        let Some(below) = below else { return };
        if needed {
            size_min += property.len() as u64 + below.size_min + 4;
        }
        of.add(property, below.of.clone());
        if let Some(escaped) = cel::escape(property) {
            fields.insert(escaped, below);
        }
    };
    for (property, below) in &schema.properties {
        if root && matches!(property.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let needed = required.contains(property) && below.default.is_none();
        add(property, declare(below, below.embedded_resource, &format!("{name}.{property}")), needed);
    }
    if root {
        // Of these every resource has as much as expressions may see.
        for property in ["apiVersion", "kind"] {
            add(property, Decl::scalar(Type::String, STRING_SIZE_MIN, REQUEST_MAX - 2), required.iter().any(|r| r == property));
        }
        add("metadata", Some(metadata(name)), required.iter().any(|r| r == "metadata"));
    }
    Decl { of: Type::Object(Arc::new(of)), size_min, elements_max: 0, parts: Parts::Fields(fields) }
}

fn metadata(name: &str) -> Decl {
    let mut of = ObjectType::new(format!("{name}.metadata"));
    let mut fields = BTreeMap::new();
    for property in ["name", "generateName"] {
        of.add(property, Type::String);
        fields.extend(Decl::scalar(Type::String, STRING_SIZE_MIN, REQUEST_MAX - 2).map(|below| (property.to_owned(), below)));
    }
    Decl { of: Type::Object(Arc::new(of)), size_min: 2, elements_max: 0, parts: Parts::Fields(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_and_sizes_follow_the_schema() {
        let schema = Schema::parse(&json!({"type": "object", "required": ["l"], "properties": {
            "s": {"type": "string", "maxLength": 5}, "e": {"type": "string", "enum": ["a", "bcd"]}, "t": {"type": "string", "format": "date-time"},
            "l": {"type": "array", "maxItems": 7, "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            "a-b": {"type": "boolean"}, "any": {"x-kubernetes-preserve-unknown-fields": true}, "ios": {"x-kubernetes-int-or-string": true},
        }}))
        .unwrap();
        let decl = Decl::of(&schema, true).unwrap();
        let most = |path: &[&str]| decl.elements_max(&path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(most(&["self", "s"]), Some(20));
        assert_eq!(most(&["self", "e"]), Some(3));
        assert_eq!(most(&["self", "t"]), Some(32));
        assert_eq!(most(&["self", "l"]), Some(7));
        assert_eq!(most(&["self", "l", "@items"]), Some(REQUEST_MAX - 2));
        assert_eq!(most(&["self", "m"]), Some((REQUEST_MAX - 2) / 7));
        assert_eq!(most(&["self", "metadata", "name"]), Some(REQUEST_MAX - 2));
        assert_eq!(most(&["self", "any"]), None);
        let Type::Object(of) = &decl.of else { panic!("no object") };
        assert!(of.fields.contains_key("a__dash__b") && of.fields.contains_key("kind") && !of.fields.contains_key("any"));
        assert_eq!(of.fields["t"].of, Type::Timestamp);
        assert_eq!(of.fields["ios"].of, Type::Dyn);
        assert_eq!(decl.cardinality_max(), REQUEST_MAX / (2 + 1 + 2 + 4 + 1));
    }
}
