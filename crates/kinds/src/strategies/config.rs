//! ConfigMap, Secret, ServiceAccount, Namespace.

use base64::Engine as _;
use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Map, Value, json};

use super::workload::keep_status;
use crate::columns::{age, name};
use crate::strategy::{Context, Strategy};
use crate::validate::rules::named;
use crate::validate::tree::{at, entries, flag, keep, list, opt, remove, s, set, set_default, strings};

/// All values of a ConfigMap or Secret together.
const MAX_BYTES: usize = 1024 * 1024;
const FIXED: &str = "field is immutable when `immutable` is set";

fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn immutable_data(new: &Value, old: &Value, keys: &[&str], e: &mut ErrorList) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        e.push(Error::forbidden(&Path::new("immutable"), FIXED));
    }
    for key in keys {
        // By `reflect.DeepEqual`, to which an empty map is not none.
        if opt(new, key) != opt(old, key) {
            e.push(Error::forbidden(&Path::new(key), FIXED));
        }
    }
}

/// Shown only: there are no objects.
pub struct ComponentStatuses;

impl Strategy for ComponentStatuses {
    fn cells(&self, o: &Value, _now: i64) -> Option<Vec<Value>> {
        let healthy = list(o, "conditions").iter().rfind(|c| s(c, "type") == "Healthy");
        let word = healthy.map_or("Unknown", |c| if s(c, "status") == "True" { "Healthy" } else { "Unhealthy" });
        let of = |key: &str| json!(healthy.map_or("", |c| s(c, key)));
        Some(vec![name(o), json!(word), of("message"), of("error")])
    }
}

pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let (data, binary) = (Path::new("data"), Path::new("binaryData"));
        let mut total = 0;
        for (key, value) in entries(object, "data") {
            named(&data.key(key), key, names::config_map_key(key), &mut e);
            if entries(object, "binaryData").any(|(k, _)| k == key) {
                e.push(Error::invalid_str(&data.key(key), key, "duplicate of key present in binaryData"));
            }
            total += value.as_str().map_or(0, str::len);
        }
        for (key, value) in entries(object, "binaryData") {
            named(&binary.key(key), key, names::config_map_key(key), &mut e);
            total += value.as_str().map_or(0, decoded_len);
        }
        if total > MAX_BYTES {
            e.push(Error::too_long(&Path::new(""), MAX_BYTES));
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        immutable_data(new, old, &["data", "binaryData"], &mut e);
        e.extend(self.validate(ctx, new));
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(entries(o, "data").count() + entries(o, "binaryData").count()), age(o, now)])
    }
}

pub struct Secrets;

/// What a secret of a type must hold.
const NEEDED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for Secrets {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        set_default(object, "type", "Opaque");
        // What was given as text is data.
        let text: Map<String, Value> = opt(object, "stringData").and_then(Value::as_object).cloned().unwrap_or_default();
        if !text.is_empty() {
            let mut data = opt(object, "data").and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, value) in text {
                let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or(""));
                data.insert(key, json!(encoded));
            }
            set(object, "data", data);
        }
        remove(object, "stringData");
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let data = Path::new("data");
        let mut total = 0;
        for (key, value) in entries(object, "data") {
            named(&data.key(key), key, names::config_map_key(key), &mut e);
            total += value.as_str().map_or(0, decoded_len);
        }
        if total > MAX_BYTES {
            e.push(Error::too_long(&data, MAX_BYTES));
        }
        let ty = s(object, "type");
        match ty {
            "kubernetes.io/service-account-token" => {
                let meta = Path::new("metadata");
                let key = "kubernetes.io/service-account.name";
                if opt(object, "metadata").and_then(|m| opt(m, "annotations")).is_none_or(|a| s(a, key).is_empty()) {
                    e.push(Error::required(&meta.child("annotations").key(key), ""));
                }
            }
            "kubernetes.io/basic-auth" => {
                let there = |key: &str| entries(object, "data").any(|(k, _)| k == key);
                if !there("username") && !there("password") {
                    e.push(Error::required(&data.key("username"), ""));
                    e.push(Error::required(&data.key("password"), ""));
                }
            }
            _ => {}
        }
        for key in NEEDED.iter().filter(|(t, _)| *t == ty).flat_map(|(_, keys)| keys.iter()) {
            let value = opt(object, "data").map_or("", |d| s(d, key));
            let missing = !entries(object, "data").any(|(k, _)| k == key);
            if missing || (value.is_empty() && *key == "ssh-privatekey") {
                e.push(Error::required(&data.key(key), ""));
            } else if let Some(problem) = Some(value).filter(|_| key.starts_with(".docker")).and_then(object_problem) {
                e.push(Error::invalid_str(&data.key(key), "<secret contents redacted>", problem));
            }
        }
        e
    }

    fn validate_update(&self, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        if s(new, "type") != s(old, "type") {
            e.push(Error::invalid_str(&Path::new("type"), s(new, "type"), "field is immutable"));
        }
        immutable_data(new, old, &["data"], &mut e);
        e.extend(self.validate(ctx, new));
        e
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(s(o, "type")), json!(entries(o, "data").count()), age(o, now)])
    }
}

/// What Go's decoder says of bytes that are no JSON object; none has nothing to say, like an object.
fn object_problem(base64_text: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64_text).unwrap_or_default();
    let found = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return None,
        Ok(Value::Array(_)) => "array",
        Ok(Value::String(_)) => "string",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Bool(_)) => "bool",
        Err(error) if error.is_eof() => return Some("unexpected end of JSON input".to_owned()),
        Err(_) => {
            let first = bytes.iter().copied().find(|b| !b.is_ascii_whitespace()).map_or(' ', char::from);
            return Some(format!("invalid character '{first}' looking for beginning of value"));
        }
    };
    Some(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}

pub struct ServiceAccounts;

/// Of a secret only its name counts.
fn only_names(object: &mut Value) {
    for secret in crate::validate::tree::list_mut(object, "secrets") {
        let name = s(secret, "name");
        *secret = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    }
}

impl Strategy for ServiceAccounts {
    fn warnings(&self, _ctx: &Context, new: &Value, _old: Option<&Value>) -> Vec<String> {
        crate::warnings::service_account(new)
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        only_names(object);
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, _old: &Value) {
        only_names(new);
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), age(o, now)])
    }
}

pub struct Namespaces;

/// `namespaces/status`
pub struct NamespaceStatus;

/// `namespaces/finalize`
pub struct NamespaceFinalize;

impl Strategy for Namespaces {
    fn default(&self, _ctx: &Context, object: &mut Value) {
        let meta = machinery::object::metadata_mut(object);
        let name = meta.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
        if name.is_empty() {
            return;
        }
        let labels = meta.entry("labels").or_insert(Value::Null);
        if !labels.is_object() {
            *labels = json!({});
        }
        set(labels, "kubernetes.io/metadata.name", name);
    }

    fn prepare_for_create(&self, _ctx: &Context, object: &mut Value) {
        set(object, "status", json!({"phase": "Active"}));
        let mut finalizers: Vec<Value> = at(object, "spec").map_or_else(Vec::new, |spec| list(spec, "finalizers").to_vec());
        if !finalizers.contains(&json!("kubernetes")) {
            finalizers.push(json!("kubernetes"));
        }
        set(object, "spec", json!({"finalizers": finalizers}));
    }

    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        keep_status(new, old);
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let spec = Path::new("spec");
        finalizers(object, &spec.child("finalizers"), false, &mut e);
        e
    }

    fn validate_update(&self, _ctx: &Context, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn subresource(&self, name: &str) -> Option<&dyn Strategy> {
        match name {
            "status" => Some(&NamespaceStatus),
            "finalize" => Some(&NamespaceFinalize),
            _ => None,
        }
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), at(o, "status.phase").cloned().unwrap_or_else(|| json!("")), age(o, now)])
    }
}

/// Only the endpoint for them tells which one is wrong.
fn finalizers(object: &Value, at: &Path<'_>, numbered: bool, e: &mut ErrorList) {
    let Some(spec) = opt(object, "spec") else { return };
    for (i, name) in strings(spec, "finalizers").enumerate() {
        let item = at.index(i);
        let p = if numbered { &item } else { at };
        named(p, name, names::qualified_name(name), e);
        if !name.contains('/') && !["foregroundDeletion", "kubernetes", "orphan"].contains(&name) {
            e.push(Error::invalid_str(p, name, "name is neither a standard finalizer name nor is it fully qualified"));
        }
    }
}

impl Strategy for NamespaceStatus {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let deleted = opt(old, "metadata").is_some_and(|m| opt(m, "deletionTimestamp").is_some())
            || opt(new, "metadata").is_some_and(|m| opt(m, "deletionTimestamp").is_some());
        let phase = opt(new, "status").map_or("", |st| s(st, "phase"));
        let p = Path::new("status");
        if deleted && phase != "Terminating" {
            e.push(Error::invalid_str(&p.child("Phase"), phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"));
        }
        if !deleted && phase != "Active" {
            e.push(Error::invalid_str(&p.child("Phase"), phase, "may only be 'Active' if `deletionTimestamp` is empty"));
        }
        e
    }
}

impl Strategy for NamespaceFinalize {
    fn prepare_for_update(&self, _ctx: &Context, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        let mut e = ErrorList::new();
        let spec = Path::new("spec");
        finalizers(new, &spec.child("finalizers"), true, &mut e);
        e
    }
}
