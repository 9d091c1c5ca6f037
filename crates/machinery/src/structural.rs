//! Structural schemas: what a CustomResourceDefinition says of its objects, parsed from the `apiextensions/v1`
//! `JSONSchemaProps` tree into compact data, and everything that is decided by it: [`Schema::decode`] (pruning, nulls,
//! embedded metadata), [`Schema::default`], [`Schema::validate`], and [`Schema::to_types`] for server-side apply.
//!
//! It does not judge schemas: whether a definition is structural is up to `kinds`, and what it refuses never gets here. It
//! publishes none either: OpenAPI is made of the definition's own tree. `apiserver` keeps one [`Schema`] per served version.

mod check;
mod decode;
mod default;
mod embedded;
mod formats;
mod lists;
mod numbers;
mod parse;
mod pattern;
mod trail;
mod types;
mod validate;

use std::collections::BTreeMap;

use serde_json::Value;

pub use decode::{ObjectMeta, Source};
pub use parse::{CHECKS, ParseError};
pub use pattern::Pattern;
pub use trail::Place;

/// A schema and everything below it. The parts of `allOf` and the like are schemas as well, with `kind` mostly absent.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `type`
    pub kind: Option<Kind>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`; absent where the schema says nothing.
    pub additional: Option<Additional>,
    pub items: Option<Box<Schema>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`; an array without one is atomic.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
    /// Whether an embedded resource is here or below.
    pub holds_embedded: bool,
    /// The value validations; most schemas have none.
    pub checks: Option<Box<Checks>>,
}

/// A JSON type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Additional {
    /// `true` lets everything through validation, but prunes what is inside as upstream does.
    Allowed(bool),
    Schema(Box<Schema>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// One of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    /// `FieldValueInvalid` where nothing is said.
    pub reason: String,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

/// What a value must hold to beyond its type.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// As written; [`format_is_known`] tells whether it is checked.
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Whether pruning leaves everything in this place alone.
    pub fn is_opaque(&self) -> bool {
        self.preserve_unknown && self.properties.is_empty() && self.items.is_none() && self.additional.is_none()
    }

    /// The schema of a map's values.
    pub fn additional_schema(&self) -> Option<&Schema> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// Where a dotted path of properties leads: `spec.replicas`.
    pub fn at(&self, path: &str) -> Option<&Schema> {
        path.split('.').filter(|p| !p.is_empty()).try_fold(self, |schema, name| schema.properties.get(name))
    }
}

/// Whether values are checked for a format.
pub fn format_is_known(format: &str) -> bool {
    formats::rule(format).is_some()
}

/// Whether a text is of a format; `None` for formats nothing is checked for.
pub fn format_fits(format: &str, text: &str) -> Option<bool> {
    formats::rule(format).map(|rule| rule(text))
}
