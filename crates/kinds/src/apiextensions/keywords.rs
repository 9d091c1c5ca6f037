//! Keyword by keyword, what a definition's schema may say. Upstream's `ValidateCustomResourceDefinitionOpenAPISchema`.

use serde_json::{Value, json};

use super::costs::{Costs, child_cardinality};
use super::field_path::field_path;
use super::rules::compile::Expressions;
use super::structural::{must_be_object, unsupported};
use crate::validate::tree::{entries, flag, has, list, opt, opt_s, s, strings};
use crate::validate::{Error, ErrorList, Path};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What an update need not hold to because the definition already broke it.
#[derive(Clone, Copy, Debug)]
pub struct Strictness {
    pub valid_types: bool,
    pub atomic_sets: bool,
    pub map_keys: bool,
}

impl Strictness {
    pub const ALL: Self = Self { valid_types: true, atomic_sets: true, map_keys: true };
}

/// What the place of a schema forbids.
#[derive(Clone, Copy, Default)]
struct Scope<'a> {
    /// Why there may be no default here.
    no_defaults: Option<&'a str>,
    inside_meta: bool,
    /// Where old and new values stop being the same ones.
    uncorrelatable: Option<&'a Path<'a>>,
    /// How many values there can be of this schema; `None` where expressions are not looked at.
    cardinality: Option<Cardinality>,
}

/// A number, or no bound.
type Cardinality = Option<u64>;

/// Checks a schema and everything below it. With `costs`, expressions are compiled and estimated too: the schema is structural.
pub fn validate(schema: &Value, strictness: Strictness, costs: Option<Costs>, path: &Path<'_>) -> ErrorList {
    let scope = Scope { cardinality: costs.is_some().then_some(Some(1)), ..Scope::default() };
    let mut checker = Checker { strictness, errors: ErrorList::new(), cel_errors: ErrorList::new(), costs: costs.unwrap_or_default() };
    checker.schema(schema, true, scope, path);
    checker.errors.append(&mut checker.cel_errors);
    checker.errors.extend(checker.costs.errors(path));
    checker.errors
}

struct Checker {
    strictness: Strictness,
    errors: ErrorList,
    cel_errors: ErrorList,
    costs: Costs,
}

impl Checker {
    fn schema(&mut self, v: &Value, root: bool, scope: Scope<'_>, p: &Path<'_>) {
        let before = self.errors.len();
        self.standard(v, scope, p);
        if flag(v, "uniqueItems") {
            const QUADRATIC: &str = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(Error::forbidden(&p.child("uniqueItems"), QUADRATIC));
        }
        self.additional_properties(v, scope, p);
        self.properties(v, root, scope, p);
        self.alternatives(v, scope, p);
        self.items(v, scope, p);
        let at = p.child("dependencies");
        for (name, below) in entries(v, "dependencies").filter(|(_, below)| below.is_object()) {
            self.schema(below, false, scope, &at.key(name));
        }
        self.extensions(v, p);
        self.list_type(v, p);
        if self.strictness.map_keys {
            map_keys(v, p, &mut self.errors);
        }
        self.rules(v, p);
        if self.errors.len() == before {
            self.expressions(v, root, scope, p);
        }
    }

    fn standard(&mut self, v: &Value, scope: Scope<'_>, p: &Path<'_>) {
        const UNSUPPORTED: [&str; 6] = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
        let kind = s(v, "type");
        if self.strictness.valid_types && !kind.is_empty() && !TYPES.contains(&kind) {
            self.errors.push(Error::not_supported(&p.child("type"), &json!(kind), &TYPES));
        }
        if let Some(why) = scope.no_defaults.filter(|_| has(v, "default")) {
            self.errors.push(Error::forbidden(&p.child("default"), format!("must not be set {why}")));
        }
        for key in UNSUPPORTED {
            let given = match opt(v, key) {
                None => false,
                Some(Value::String(text)) => key == "$ref" || !text.is_empty(),
                Some(Value::Object(map)) => matches!(key, "additionalItems" | "dependencies") || !map.is_empty(),
                Some(_) => true,
            };
            if given {
                self.errors.push(Error::forbidden(&p.child(key), format!("{key} is not supported")));
            }
        }
        if kind == "null" {
            self.errors.push(Error::forbidden(&p.child("type"), "type cannot be set to null, use nullable as an alternative"));
        }
        if !list(v, "items").is_empty() {
            self.errors.push(Error::forbidden(&p.child("items"), "items must be a schema object and not an array"));
        }
        if scope.inside_meta && flag(v, "x-kubernetes-embedded-resource") {
            let at = p.child("x-kubernetes-embedded-resource");
            self.errors.push(Error::forbidden(&at, "must not be used inside of resource meta"));
        }
    }

    fn additional_properties(&mut self, v: &Value, scope: Scope<'_>, p: &Path<'_>) {
        let Some(additional) = opt(v, "additionalProperties") else { return };
        let at = p.child("additionalProperties");
        if entries(v, "properties").next().is_some() && *additional != Value::Bool(true) {
            self.errors.push(Error::forbidden(&at, "additionalProperties and properties are mutual exclusive"));
        }
        if additional.is_object() {
            let mut scope = scope.below(v);
            if scope.inside_meta {
                scope.no_defaults = Some("inside additionalProperties applying to object metadata");
            }
            self.schema(additional, false, scope, &at);
        }
    }

    fn properties(&mut self, v: &Value, root: bool, scope: Scope<'_>, p: &Path<'_>) {
        let at = p.child("properties");
        let map_type = opt_s(v, "x-kubernetes-map-type");
        let correlatable = matches!(map_type, None | Some("granular" | "atomic"));
        for (name, property) in entries(v, "properties") {
            let mut scope = scope.below(v);
            if !correlatable {
                scope.uncorrelatable.get_or_insert(p);
            }
            let why = format!("in top-level {name}");
            if (root || flag(v, "x-kubernetes-embedded-resource")) && META_FIELDS.contains(&name.as_str()) {
                scope.inside_meta = true;
                if root {
                    scope.no_defaults = Some(&why);
                }
            }
            self.schema(property, false, scope, &at.key(name));
        }
    }

    fn alternatives(&mut self, v: &Value, scope: Scope<'_>, p: &Path<'_>) {
        let scope = Scope { cardinality: None, ..scope };
        if let Some(not) = opt(v, "not") {
            self.schema(not, false, scope, &p.child("not"));
        }
        for key in ["allOf", "oneOf", "anyOf"] {
            let at = p.child(key);
            for (index, part) in list(v, key).iter().enumerate() {
                self.schema(part, false, scope, &at.index(index));
            }
        }
        let at = p.child("definitions");
        for (name, below) in entries(v, "definitions") {
            self.schema(below, false, scope, &at.key(name));
        }
    }

    fn items(&mut self, v: &Value, scope: Scope<'_>, p: &Path<'_>) {
        let Some(items) = opt(v, "items") else { return };
        let mut scope = scope.below(v);
        if s(v, "x-kubernetes-list-type") != "map" {
            scope.uncorrelatable.get_or_insert(p);
        }
        let at = p.child("items");
        match items {
            Value::Array(many) => many.iter().enumerate().for_each(|(i, below)| self.schema(below, false, scope, &at.index(i))),
            one => self.schema(one, false, scope, &at),
        }
    }

    fn extensions(&mut self, v: &Value, p: &Path<'_>) {
        let e = &mut self.errors;
        if opt(v, "x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            e.push(Error::invalid(&p.child("x-kubernetes-preserve-unknown-fields"), &json!(false), "must be true or undefined"));
        }
        let Some(map_type) = opt_s(v, "x-kubernetes-map-type") else { return };
        if s(v, "type") != "object" {
            must_be_object(v, &p.child("type"), "must be object if x-kubernetes-map-type is specified", e);
        }
        if !matches!(map_type, "atomic" | "granular") {
            e.push(Error::not_supported(&p.child("x-kubernetes-map-type"), &json!(map_type), &["atomic", "granular"]));
        }
    }

    fn list_type(&mut self, v: &Value, p: &Path<'_>) {
        let list_type = opt_s(v, "x-kubernetes-list-type");
        let items = opt(v, "items").filter(|items| items.is_object());
        let e = &mut self.errors;
        if list_type.is_some() && s(v, "type") != "array" {
            must_be_object(v, &p.child("type"), "must be array if x-kubernetes-list-type is specified", e);
        } else if let Some(items) = items.filter(|_| self.strictness.atomic_sets && list_type == Some("set")) {
            atomic_items(items, &p.child("items"), e);
        }
        if let Some(other) = list_type.filter(|t| !matches!(*t, "atomic" | "set" | "map")) {
            e.push(Error::not_supported(&p.child("x-kubernetes-list-type"), &json!(other), &["atomic", "set", "map"]));
        }
        if !list(v, "x-kubernetes-list-map-keys").is_empty() {
            const MAP: &str = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => e.push(Error::required(&p.child("x-kubernetes-list-type"), MAP)),
                Some("map") => {}
                Some(other) => e.push(Error::invalid_str(&p.child("x-kubernetes-list-type"), other, MAP)),
            }
        }
        if list_type == Some("map") {
            map_list(v, items, p, e);
        }
    }

    fn rules(&mut self, v: &Value, p: &Path<'_>) {
        let rules = list(v, "x-kubernetes-validations");
        if rules.is_empty() {
            return;
        }
        let parsed = rules.iter().any(|rule| !s(rule, "fieldPath").is_empty()) && unsupported(v).is_none();
        let parsed = parsed.then(|| machinery::structural::Schema::parse(v).ok()).flatten();
        let at = p.child("x-kubernetes-validations");
        for (index, rule) in rules.iter().enumerate() {
            let leads_nowhere = |path: &str| parsed.as_ref().is_some_and(|schema| field_path(path, schema, true).is_err());
            rule_texts(rule, &leads_nowhere, &at.index(index), &mut self.errors);
        }
    }

    /// Rules of a schema that is sound here and below.
    fn expressions(&mut self, v: &Value, root: bool, scope: Scope<'_>, p: &Path<'_>) {
        let rules = list(v, "x-kubernetes-validations");
        let Some(cardinality) = scope.cardinality.filter(|_| !rules.is_empty()) else { return };
        let at = p.child("x-kubernetes-validations");
        let schema = machinery::structural::Schema::parse(v).ok();
        let Some(own) = schema.and_then(|schema| Expressions::of(&schema, root || schema.embedded_resource)) else {
            const NO_TYPE: &str = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to \
                                   convert structural schema to CEL declarations";
            self.cel_errors.push(Error::internal(&at, NO_TYPE));
            return;
        };
        for (index, (compiled, rule)) in own.rules.iter().zip(rules).enumerate() {
            let at = at.index(index);
            self.costs.rule(compiled, &own.decl, cardinality, rule, &at, &mut self.cel_errors);
            if !compiled.uses_old_self {
                if let Some(optional) = compiled.rule.optional_old_self {
                    let text = "may not be set if oldSelf is not used in rule";
                    self.cel_errors.push(Error::invalid(&at.child("optionalOldSelf"), &json!(optional), text));
                }
            } else if let Some(path) = scope.uncorrelatable {
                let text = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                self.cel_errors.push(Error::invalid_str(&at.child("rule"), s(rule, "rule"), text));
            }
        }
    }
}

impl Scope<'_> {
    /// The scope of what is below a schema: of lists and maps there can be more of it.
    fn below(self, v: &Value) -> Self {
        Self { cardinality: self.cardinality.map(|c| child_cardinality(c, v)), ..self }
    }
}

/// Items of a set are compared whole.
fn atomic_items(items: &Value, at: &Path<'_>, e: &mut ErrorList) {
    const ATOMIC: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let of = |key: &str| opt(items, key).unwrap_or(&Value::Null);
    let list_type = of("x-kubernetes-list-type");
    match s(items, "type") {
        "array" if !list_type.is_null() && list_type != "atomic" => {
            e.push(Error::invalid(&at.child("x-kubernetes-list-type"), list_type, ATOMIC));
        }
        "object" if of("x-kubernetes-map-type") != "atomic" => {
            e.push(Error::invalid(&at.child("x-kubernetes-map-type"), list_type, ATOMIC));
        }
        _ => {}
    }
}

fn map_list(v: &Value, items: Option<&Value>, p: &Path<'_>, e: &mut ErrorList) {
    let keys: Vec<&str> = strings(v, "x-kubernetes-list-map-keys").collect();
    let at_keys = p.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        e.push(Error::required(&at_keys, "must not be empty if x-kubernetes-list-type is map"));
    }
    let at_items = p.child("items");
    match (opt(v, "items"), items) {
        (None, _) => e.push(Error::required(&at_items, "must have a schema if x-kubernetes-list-type is map")),
        (Some(given), None) => {
            e.push(Error::invalid(&at_items, given, "must only have a single schema if x-kubernetes-list-type is map"));
        }
        _ => {}
    }
    let Some(items) = items else { return };
    let kind = s(items, "type");
    if kind != "object" {
        let text = "must be object if parent array's x-kubernetes-list-type is map";
        e.push(Error::invalid_str(&at_items.child("type"), kind, text));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        match items.get("properties").and_then(|all| opt(all, key)) {
            Some(property) if matches!(s(property, "type"), "array" | "object") => {
                let text = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                e.push(Error::invalid_str(&at_items.child("properties").key(key).child("type"), kind, text));
            }
            Some(_) => {}
            None => e.push(Error::invalid(&at_keys, &json!(keys), "entries must all be names of item properties")),
        }
        if keys[..index].contains(key) {
            e.push(Error::invalid(&at_keys, &json!(keys), "must not contain duplicate entries"));
        }
    }
}

/// Keys of associative lists are always there; items of them and of sets are never null.
pub fn map_keys(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(items) = opt(v, "items").filter(|items| items.is_object()) else { return };
    let list_type = s(v, "x-kubernetes-list-type");
    if !matches!(list_type, "set" | "map") {
        return;
    }
    let at = p.child("items");
    if flag(items, "nullable") {
        let text = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        e.push(Error::forbidden(&at.child("nullable"), text));
    }
    if list_type != "map" {
        return;
    }
    let at = at.child("properties");
    for key in strings(v, "x-kubernetes-list-map-keys") {
        let Some(property) = items.get("properties").and_then(|all| opt(all, key)) else { continue };
        let at = at.key(key);
        if !has(property, "default") && !strings(items, "required").any(|name| name == key) {
            const NEEDED: &str = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            e.push(Error::required(&at.child("default"), NEEDED));
        }
        if flag(property, "nullable") {
            let text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            e.push(Error::forbidden(&at.child("nullable"), text));
        }
    }
}

/// Whether a set has items that merge; old definitions may.
pub fn has_mergeable_set_items(v: &Value) -> bool {
    let Some(items) = opt(v, "items").filter(|items| items.is_object()) else { return false };
    let mut errors = ErrorList::new();
    atomic_items(items, &Path::new("items"), &mut errors);
    s(v, "x-kubernetes-list-type") == "set" && !errors.is_empty()
}

pub fn has_unknown_type(v: &Value) -> bool {
    !s(v, "type").is_empty() && !TYPES.contains(&s(v, "type"))
}

fn rule_texts(rule: &Value, leads_nowhere: &dyn Fn(&str) -> bool, p: &Path<'_>, e: &mut ErrorList) {
    let broken = |text: &str| text.contains(['\n', '\r']);
    let (text, message, expression, path) = (s(rule, "rule"), s(rule, "message"), s(rule, "messageExpression"), s(rule, "fieldPath"));
    let at_message = p.child("message");
    if text.trim().is_empty() {
        e.push(Error::required(&p.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        e.push(Error::invalid_str(&at_message, message, "message must be non-empty if specified"));
    } else if broken(message.trim()) {
        e.push(Error::invalid_str(&at_message, message, "message must not contain line breaks"));
    } else if broken(text.trim()) && message.trim().is_empty() {
        e.push(Error::required(&at_message, "message must be specified if rule contains line breaks"));
    }
    if !expression.is_empty() && expression.trim().is_empty() {
        e.push(Error::required(&p.child("messageExpression"), "messageExpression must be non-empty if specified"));
    }
    if let Some(reason) = opt_s(rule, "reason").filter(|reason| !REASONS.contains(reason)) {
        e.push(Error::not_supported(&p.child("reason"), &json!(reason), &REASONS));
    }
    let at_path = p.child("fieldPath");
    if !path.is_empty() && path.trim().is_empty() {
        e.push(Error::invalid_str(&at_path, path, "fieldPath must be non-empty if specified"));
    }
    if broken(path) {
        e.push(Error::invalid_str(&at_path, path, "fieldPath must not contain line breaks"));
    }
    if !path.is_empty() && leads_nowhere(path) {
        e.push(Error::invalid_str(&at_path, path, "must be a valid path"));
    }
}
