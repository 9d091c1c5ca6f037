//! `x-kubernetes-validations`: rules in CEL, compiled once per schema and evaluated for each write, within a budget for the whole
//! object. Upstream's `apiserver/schema/cel`.
//!
//! [`Rules`] stands beside the `structural::Schema` it was made from; `custom` keeps both. [`validate`] runs everything a custom
//! resource must hold to.

pub mod compile;
pub mod declare;
mod evaluate;

use std::collections::BTreeMap;

use machinery::field::{Error, ErrorType};
use machinery::structural::Schema;
use serde_json::Value;

use crate::validate::ErrorList;
use compile::{Compiled, Expressions};

/// The rules of a schema and everything below it.
pub struct Rules {
    root: Option<Node>,
}

/// Rules at a place, and below.
#[derive(Default)]
struct Node {
    own: Vec<Compiled>,
    /// The value's type, shown in errors.
    kind: &'static str,
    items: Option<Box<Node>>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
}

impl Rules {
    /// Compiles all rules of a resource's schema.
    pub fn of(schema: &Schema) -> Self {
        Self { root: node(schema, true) }
    }

    /// Those of a default, which is no resource unless its schema says so.
    pub fn of_part(schema: &Schema) -> Self {
        Self { root: node(schema, schema.embedded_resource) }
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

fn node(schema: &Schema, root: bool) -> Option<Node> {
    let below = |schema: &Schema| node(schema, schema.embedded_resource);
    let made = Node {
        // What was declared is needed for estimates alone.
        own: if schema.rules.is_empty() { Vec::new() } else { Expressions::of(schema, root).map(|e| e.rules).unwrap_or_default() },
        kind: schema.kind.map_or("", |k| k.name()),
        items: schema.items.as_deref().and_then(below).map(Box::new),
        properties: schema.properties.iter().filter_map(|(name, property)| Some((name.clone(), below(property)?))).collect(),
        additional: schema.additional_schema().and_then(below).map(Box::new),
    };
    let empty = made.own.is_empty() && made.items.is_none() && made.properties.is_empty() && made.additional.is_none();
    (!empty).then_some(made)
}

impl Rules {
    /// The last of all checks: what was found before decides whether rules can rely on the schema.
    /// Answers what an update is warned of: rules that do not hold where it has changed nothing.
    pub fn check(&self, schema: &Schema, new: &Value, old: Option<&Value>, errors: &mut ErrorList) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        if errors.iter().any(blocks) {
            const NOT_CHECKED: &str =
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            errors.push(Error {
                kind: ErrorType::Invalid,
                field: "<nil>".to_owned(),
                value: "null".to_owned(),
                detail: NOT_CHECKED.to_owned(),
            });
            return Vec::new();
        }
        let mut budget = cel::Budget::new(cel::RUNTIME_BUDGET);
        let (found, warnings) = self.evaluate(schema, new, old, &mut budget);
        errors.extend(found);
        warnings
    }
}

/// Errors after which rules could meet values that are not of their types.
fn blocks(error: &Error) -> bool {
    matches!(error.kind, ErrorType::NotSupported | ErrorType::Required | ErrorType::TooLong | ErrorType::TooMany | ErrorType::TypeInvalid)
}
