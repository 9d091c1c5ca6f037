//! Defaults must be what the schema allows: pruned, valid, and inside metadata such that the metadata is valid with them.
//! Upstream's `structuraldefaulting.ValidateDefaults`.

use machinery::structural::{ObjectMeta, Place, Schema};
use serde_json::{Value, json};

use super::rules::Rules;
use crate::validate::{Error, ErrorList, Path};

pub struct Defaults<'m> {
    pub meta: ObjectMeta<'m>,
    /// Defaults may not hold fields that would be pruned.
    pub pruned: bool,
    /// What evaluating rules on all defaults may cost.
    pub budget: cel::Budget,
}

/// Where a value lies in the resource around it.
#[derive(Clone, Copy)]
enum Around<'a> {
    Root,
    Field(&'a Around<'a>, &'a str),
    Item(&'a Around<'a>),
}

impl Around<'_> {
    /// A resource with nothing but this value.
    fn object(self, value: Value) -> Value {
        match self {
            Self::Root => {
                let mut object = json!({"apiVersion": "validation/v1", "kind": "Validation"});
                if let (Some(map), Value::Object(fields)) = (object.as_object_mut(), value) {
                    map.extend(fields);
                }
                object
            }
            Self::Field(around, name) => around.object(json!({name: value})),
            Self::Item(around) => around.object(json!([value])),
        }
    }
}

/// What lies around a schema.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// The resource it belongs to.
    resource: &'a Schema,
    around: Around<'a>,
    inside_meta: bool,
}

impl Defaults<'_> {
    /// Judges the defaults of a resource's schema.
    pub fn validate(&mut self, schema: &Schema, path: &Path<'_>, errors: &mut ErrorList) {
        self.visit(schema, true, Scope { resource: schema, around: Around::Root, inside_meta: false }, path, errors);
    }

    fn visit(&mut self, schema: &Schema, root: bool, scope: Scope<'_>, path: &Path<'_>, errors: &mut ErrorList) {
        let embedded = root || schema.embedded_resource;
        let scope = if embedded { Scope { resource: schema, around: Around::Root, inside_meta: false } } else { scope };
        if let Some(default) = &schema.default {
            let at = path.child("default");
            if scope.inside_meta {
                self.inside_meta(schema, default, scope, &at, errors);
            } else {
                self.plain(schema, default, embedded, &at, errors);
            }
        }
        // Below `additionalProperties` defaults are forbidden.
        if let Some(items) = &schema.items {
            let around = Around::Item(&scope.around);
            self.visit(items, false, Scope { around, ..scope }, &path.child("items"), errors);
        }
        let at = path.child("properties");
        for (name, property) in &schema.properties {
            let of_meta = embedded && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            let scope = Scope { around: Around::Field(&scope.around, name), inside_meta: scope.inside_meta || of_meta, ..scope };
            self.visit(property, false, scope, &at.key(name), errors);
        }
    }

    fn plain(&mut self, schema: &Schema, default: &Value, embedded: bool, at: &Path<'_>, errors: &mut ErrorList) {
        if self.pruned {
            let mut pruned = default.clone();
            schema.prune(&mut pruned, embedded);
            if pruned != *default {
                errors.push(Error::invalid(at, default, "must not have unknown fields"));
            }
        }
        let found = schema.check_resources(self.meta, default, embedded, Place::at(*at));
        let found = if found.is_empty() { schema.check(default, None, Place::at(*at)) } else { found };
        if found.is_empty() {
            self.rules(schema, default, at, errors);
        }
        errors.extend(found);
    }

    fn inside_meta(&mut self, schema: &Schema, default: &Value, scope: Scope<'_>, at: &Path<'_>, errors: &mut ErrorList) {
        let object = scope.around.object(default.clone());
        let found = scope.resource.check_resources(self.meta, &object, true, Place::root());
        if found.is_empty() {
            let found = schema.check(default, None, Place::at(*at));
            if found.is_empty() {
                self.rules(schema, default, at, errors);
            }
            errors.extend(found);
            return;
        }
        let text = machinery::field::aggregate(&found);
        errors.push(Error::invalid(at, default, format!("must result in valid metadata: {text}")));
    }

    /// A default must hold to the rules of its own schema; it replaces itself.
    fn rules(&mut self, schema: &Schema, default: &Value, at: &Path<'_>, errors: &mut ErrorList) {
        let rules = Rules::of_part(schema);
        if !rules.is_empty() {
            errors.extend(rules.evaluate_default(schema, default, Place::at(*at), &mut self.budget));
        }
    }
}
