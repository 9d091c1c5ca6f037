//! The strategy of custom resources, driven by their schema (upstream's `customresource` registry).

use std::sync::Arc;

use machinery::field::{Error, ErrorList, Path};
use machinery::gvk::GroupVersionKind;
use machinery::structural::{Place, Schema};
use serde_json::{Map, Value, json};

use super::columns::Cell;
use super::{ScalePaths, object_meta};
use crate::apiextensions::rules::Rules;
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::tree::{opt, strings};

const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

pub struct CustomResources {
    laws: Arc<Laws>,
    has_status: bool,
    cells: Vec<Cell>,
    status: Status,
}

struct Status {
    laws: Arc<Laws>,
}

/// What objects of a version must hold to.
struct Laws {
    gvk: GroupVersionKind,
    schema: Arc<Schema>,
    rules: Rules,
    scale: Option<ScalePaths>,
}

impl CustomResources {
    pub fn new(gvk: GroupVersionKind, schema: Arc<Schema>, has_status: bool, scale: Option<ScalePaths>, cells: Vec<Cell>) -> Self {
        let laws = Arc::new(Laws { gvk, rules: Rules::of(&schema), schema, scale });
        Self { status: Status { laws: laws.clone() }, laws, has_status, cells }
    }
}

const META: MetaRules = MetaRules { kube_finalizers: false, update_again: true, create_on_update: false, own: false };

impl Strategy for CustomResources {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        self.laws.schema.default(object);
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
        self.laws.judge(object, None, &mut Vec::new())
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
        self.laws.judge(new, Some(old), warnings)
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
        self.laws.judge_status(new, old, warnings)
    }
}

fn content(object: &Value) -> Option<Map<String, Value>> {
    let mut map = object.as_object()?.clone();
    map.remove("metadata");
    Some(map)
}

impl Laws {
    /// Of a whole object; `old` is what an update replaces.
    fn judge(&self, object: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> ErrorList {
        let mut errors = self.type_meta(object);
        if errors.is_empty() {
            errors = self.schema.check(object, old, Place::root());
            if let Some(scale) = &self.scale {
                replicas(object, &scale.spec_replicas, &mut errors);
                scale_status(object, scale, &mut errors);
            }
        }
        errors.extend(self.schema.embedded(object_meta(), object));
        errors.extend(self.schema.lists(object, old));
        warnings.extend(self.rules.check(&self.schema, object, old, &mut errors));
        errors
    }

    /// Of a change of the status: the rest may be invalid, and stays so.
    fn judge_status(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> ErrorList {
        let mut errors = self.type_meta(object);
        if errors.is_empty() {
            if let (Some(status), Some(schema)) = (object.get("status"), self.schema.properties.get("status")) {
                errors = schema.check(status, old.get("status"), Place::at(Path::new("status")));
            }
            if let Some(scale) = &self.scale {
                scale_status(object, scale, &mut errors);
            }
        }
        errors.extend(self.schema.lists(object, Some(old)));
        warnings.extend(self.rules.check(&self.schema, object, Some(old), &mut errors));
        errors
    }

    fn type_meta(&self, object: &Value) -> ErrorList {
        let wanted = [("kind", self.gvk.kind.clone()), ("apiVersion", self.gvk.api_version())];
        let differing = wanted.iter().filter(|(key, word)| crate::validate::tree::s(object, key) != word);
        differing
            .map(|(key, word)| Error::invalid_str(&Path::new(key), crate::validate::tree::s(object, key), format!("must be {word}")))
            .collect()
    }
}

fn scale_status(object: &Value, scale: &ScalePaths, errors: &mut ErrorList) {
    replicas(object, &scale.status_replicas, errors);
    label_selector(object, scale, errors);
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
                format!("{path} accessor error: {} is of the type {}, expected int64", machinery::apply::go_print(value), go_type(value));
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
            let shown = machinery::apply::go_print(value);
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
        if value.is_null() {
            return Ok(None);
        }
        walked.push('.');
        walked.push_str(step);
        let Some(map) = value.as_object() else {
            let shown = machinery::apply::go_print(value);
            return Err(format!("{walked} accessor error: {shown} is of the type {}, expected map[string]interface{{}}", go_type(value)));
        };
        let Some(next) = map.get(step) else { return Ok(None) };
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
        let with_path = if name.contains('.') { " including a path (/)" } else { "" };
        out.push(format!(
            "metadata.finalizers: {quoted}: prefer a domain-qualified finalizer name{with_path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    out
}
