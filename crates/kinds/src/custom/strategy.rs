//! The strategy of custom resources, driven by their schema (upstream's `customresource` registry).

use std::sync::Arc;

use machinery::field::{Error, ErrorList, Path};
use machinery::gvk::GroupVersionKind;
use machinery::structural::Schema;
use serde_json::{Map, Value, json};

use super::columns::Cell;
use super::{ScalePaths, object_meta};
use crate::apiextensions::rules::Rules;
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::tree::{opt, strings};

const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

pub struct CustomResources {
    gvk: GroupVersionKind,
    schema: Arc<Schema>,
    rules: Arc<Rules>,
    has_status: bool,
    scale: Option<ScalePaths>,
    cells: Vec<Cell>,
    status: Status,
}

struct Status {
    schema: Arc<Schema>,
    rules: Arc<Rules>,
    scale: Option<ScalePaths>,
}

impl CustomResources {
    pub fn new(gvk: GroupVersionKind, schema: Arc<Schema>, has_status: bool, scale: Option<ScalePaths>, cells: Vec<Cell>) -> Self {
        let rules = Arc::new(Rules::of(&schema));
        let status = Status { schema: schema.clone(), rules: rules.clone(), scale: scale.clone() };
        Self { gvk, schema, rules, has_status, scale, cells, status }
    }
}

impl CustomResources {
    fn type_meta(&self, object: &Value) -> ErrorList {
        let wanted = [("kind", self.gvk.kind.clone()), ("apiVersion", self.gvk.api_version())];
        let differing = wanted.iter().filter(|(key, word)| crate::validate::tree::s(object, key) != word);
        differing
            .map(|(key, word)| Error::invalid_str(&Path::new(key), crate::validate::tree::s(object, key), format!("must be {word}")))
            .collect()
    }
}

const META: MetaRules = MetaRules { kube_finalizers: false, update_again: true, create_on_update: false, own: false };

impl Strategy for CustomResources {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        self.schema.default(object);
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        if let (true, Some(map)) = (self.has_status, object.as_object_mut()) {
            map.remove("status");
        }
        machinery::object::metadata_mut(object).insert("generation".into(), json!(1));
    }

    fn meta_rules(&self) -> MetaRules {
        META
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut errors = self.type_meta(object);
        errors.extend(validate(&self.schema, &self.rules, self.scale.as_ref(), object, None, &mut Vec::new()));
        errors
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        if let (true, Some(map)) = (self.has_status, new.as_object_mut()) {
            match old.get("status") {
                Some(status) => drop(map.insert("status".to_owned(), status.clone())),
                None => drop(map.remove("status")),
            }
        }
        if content(new) != content(old) {
            let next = machinery::object::generation(old) + 1;
            machinery::object::metadata_mut(new).insert("generation".into(), json!(next));
        }
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        self.judge_update(ctx, new, old, &mut Vec::new())
    }

    fn judge_update(&self, _ctx: &Context, new: &Value, old: &Value, warnings: &mut Vec<String>) -> ErrorList {
        let mut errors = self.type_meta(new);
        errors.extend(validate(&self.schema, &self.rules, self.scale.as_ref(), new, Some(old), warnings));
        errors
    }

    fn warnings(&self, _ctx: &Context, new: &Value, old: Option<&Value>) -> Vec<String> {
        let finalizers = |object: &Value| -> Vec<String> {
            opt(object, "metadata").map(|m| strings(m, "finalizers").map(str::to_owned).collect()).unwrap_or_default()
        };
        let before = old.map(finalizers).unwrap_or_default();
        let mut added: Vec<String> = finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
        added.sort();
        added.dedup();
        added.iter().flat_map(|name| finalizer_warnings(name)).collect()
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        (name == "status").then_some(&self.status)
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        let mut out = vec![crate::columns::name(object)];
        if self.cells.is_empty() {
            out.push(crate::columns::age(object, now));
        }
        out.extend(self.cells.iter().map(|cell| cell.of(object, now)));
        Some(out)
    }
}

/// Changes the status and nothing else.
impl Strategy for Status {
    fn meta_rules(&self) -> MetaRules {
        META
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        let (status, managed) = (new.get("status").cloned(), new.pointer("/metadata/managedFields").cloned());
        *new = old.clone();
        let metadata = machinery::object::metadata_mut(new);
        match managed {
            Some(managed) => drop(metadata.insert("managedFields".into(), managed)),
            None => drop(metadata.remove("managedFields")),
        }
        if let Some(map) = new.as_object_mut() {
            match status {
                Some(status) => drop(map.insert("status".into(), status)),
                None => drop(map.remove("status")),
            }
        }
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        self.judge_update(ctx, new, old, &mut Vec::new())
    }

    fn judge_update(&self, _ctx: &Context, new: &Value, old: &Value, warnings: &mut Vec<String>) -> ErrorList {
        validate(&self.schema, &self.rules, self.scale.as_ref(), new, Some(old), warnings)
    }
}

fn content(object: &Value) -> Option<Map<String, Value>> {
    let mut map = object.as_object()?.clone();
    map.remove("metadata");
    Some(map)
}

fn validate(
    schema: &Schema,
    rules: &Rules,
    scale: Option<&ScalePaths>,
    object: &Value,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> ErrorList {
    let mut errors = schema.validate(object_meta(), object, old);
    if let Some(scale) = scale {
        replicas(object, &scale.spec_replicas, &mut errors);
        replicas(object, &scale.status_replicas, &mut errors);
        label_selector(object, scale, &mut errors);
    }
    warnings.extend(rules.check(schema, object, old, &mut errors));
    errors
}

/// The number of a Scale's field, which may be missing.
fn replicas(object: &Value, path: &str, errors: &mut ErrorList) {
    let at = Path::new(path);
    let found = match nested(object, path) {
        Ok(found) => found,
        Err(why) => return errors.push(Error::invalid(&at, &json!(0), why)),
    };
    let Some(value) = found else { return };
    match value.as_i64() {
        None => {
            let why =
                format!("{path} accessor error: {} is of the type {}, expected int64", machinery::field::go_value(value), go_type(value));
            errors.push(Error::invalid(&at, &json!(0), why));
        }
        Some(n) if n < 0 => errors.push(Error::invalid(&at, value, "should be a non-negative integer")),
        Some(n) if n > i64::from(i32::MAX) => {
            errors.push(Error::invalid(&at, value, format!("should be less than or equal to {}", i32::MAX)));
        }
        Some(_) => {}
    }
}

fn label_selector(object: &Value, scale: &ScalePaths, errors: &mut ErrorList) {
    if scale.label_selector.is_empty() {
        return;
    }
    let dotted = &scale.label_selector;
    let at = Path::new(dotted);
    match nested(object, &scale.label_selector) {
        Err(why) => errors.push(Error::invalid(&at, &json!(""), why)),
        Ok(Some(value)) if !value.is_string() => {
            let shown = machinery::field::go_value(value);
            let why = format!("{dotted} accessor error: {shown} is of the type {}, expected string", go_type(value));
            errors.push(Error::invalid(&at, &json!(""), why));
        }
        Ok(_) => {}
    }
}

/// Upstream's `NestedFieldNoCopy`.
fn nested<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    let mut walked = String::new();
    for step in path.trim_start_matches('.').split('.') {
        let Some(map) = value.as_object() else {
            let shown = machinery::field::go_value(value);
            return Err(format!("{walked} accessor error: {shown} is of the type {}, expected map[string]interface {{}}", go_type(value)));
        };
        let Some(next) = map.get(step) else { return Ok(None) };
        walked.push('.');
        walked.push_str(step);
        value = next;
    }
    Ok(Some(value))
}

/// Go's type of a decoded JSON value.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    let quoted = machinery::field::go_quote(name);
    let problems = machinery::names::qualified_name(name);
    let mut out: Vec<String> = problems.iter().map(|why| format!("metadata.finalizers: {quoted}: {why}")).collect();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        out.push(format!(
            "metadata.finalizers: {quoted}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
        ));
    }
    out
}
