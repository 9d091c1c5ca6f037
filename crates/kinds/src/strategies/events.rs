//! Events, as the core group and as events.k8s.io take them; errors name the fields of the core group.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::go;
use crate::validate::rules::{IMMUTABLE, named};
use crate::validate::tree::{at, has, int0, is_empty, opt, s, same};

const MESSAGE_MAX_BYTES: usize = 1024;
const WORD_MAX_BYTES: usize = 128;
const UNSET: &str = "needs to be unset";

pub struct Events;

impl Strategy for Events {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { own: true, ..MetaRules::default() }
    }

    /// The metadata of core events is looked at when all else is right, and then only as generally as any object's.
    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        let mut e = legacy(object);
        if is_new(object) {
            metadata(object, names::dns1123_subdomain, true, &mut e);
            new_fields(object, &mut e);
        } else if e.is_empty() {
            metadata(object, |name| names::path_segment(name, false), false, &mut e);
        }
        e
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let mut e = legacy(new);
        if is_new(new) {
            if !same(opt(new, "series"), opt(old, "series")) {
                series(new, &mut e);
            }
            unchanged(new, old, &mut e);
        }
        e
    }

    fn cells(&self, object: &Value, now: i64) -> Option<Vec<Value>> {
        Some(crate::columns::event::event(object, now))
    }
}

fn metadata(object: &Value, rule: fn(&str) -> names::Problems, kube_finalizers: bool, e: &mut ErrorList) {
    let name = |name: &str, prefix: bool| if prefix { rule(&names::mask_trailing_dash(name)) } else { rule(name) };
    let rules = machinery::metadata::Rules { namespaced: true, name: &name, kube_finalizers };
    e.extend(machinery::metadata::validate(object.get("metadata").unwrap_or(&Value::Null), &rules, &Path::new("metadata")));
}

/// Whether it is seen as events.k8s.io shows it.
fn is_new(object: &Value) -> bool {
    s(object, "apiVersion").starts_with("events.k8s.io/")
}

fn required_word(value: &str, p: &Path<'_>, e: &mut ErrorList) {
    if value.is_empty() {
        e.push(Error::required(p, ""));
    }
    if value.len() > WORD_MAX_BYTES {
        e.push(Error::invalid_str(p, "", format!("can have at most {WORD_MAX_BYTES} characters")));
    }
}

/// `legacyValidateEvent`: all that is asked of core events. An event time tells the newer ones.
fn legacy(object: &Value) -> ErrorList {
    let (mut e, empty) = (ErrorList::new(), json!({}));
    let new = is_new(object);
    let involved = opt(object, if new { "regarding" } else { "involvedObject" }).unwrap_or(&empty);
    let (own, of) = (machinery::object::namespace(object), s(involved, "namespace"));
    let timed = has(object, "eventTime");
    let fits = match (timed, of.is_empty()) {
        (true, true) => matches!(own, "default" | "kube-system"),
        (true, false) => true,
        (false, true) => matches!(own, "" | "default"),
        (false, false) => own == of,
    };
    if !fits {
        let p = Path::new("involvedObject");
        e.push(Error::invalid_str(&p.child("namespace"), of, "does not match event.namespace"));
    }
    if !timed {
        return e;
    }
    let controller = Path::new(if new { "reportingController" } else { "reportingComponent" });
    let given = s(object, if new { "reportingController" } else { "reportingComponent" });
    if given.is_empty() {
        e.push(Error::required(&controller, ""));
    }
    named(&controller, given, names::qualified_name(given), &mut e);
    for key in ["reportingInstance", "action", "reason"] {
        required_word(s(object, key), &Path::new(key), &mut e);
    }
    if s(object, if new { "note" } else { "message" }).len() > MESSAGE_MAX_BYTES {
        e.push(Error::invalid_str(&Path::new("message"), "", format!("can have at most {MESSAGE_MAX_BYTES} characters")));
    }
    e
}

fn new_fields(object: &Value, e: &mut ErrorList) {
    if !has(object, "eventTime") {
        e.push(Error::required(&Path::new("eventTime"), ""));
    }
    series(object, e);
    let ty = s(object, "type");
    if !matches!(ty, "Normal" | "Warning") {
        e.push(Error::invalid_str(&Path::new("type"), "", format!("has invalid value: {ty}")));
    }
    for (key, shown) in [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")] {
        if has(object, key) {
            e.push(Error::invalid_str(&Path::new(shown), "", UNSET));
        }
    }
    if int0(object, "deprecatedCount") != 0 {
        e.push(Error::invalid_str(&Path::new("count"), "", UNSET));
    }
    if ["component", "host"].iter().any(|key| at(object, "deprecatedSource").is_some_and(|source| !is_empty(source, key))) {
        e.push(Error::invalid_str(&Path::new("source"), "", UNSET));
    }
}

fn series(object: &Value, e: &mut ErrorList) {
    if let Some(series) = opt(object, "series") {
        let p = Path::new("series");
        if int0(series, "count") < 2 {
            e.push(Error::invalid_str(&p.child("count"), "", "should be at least 2"));
        }
        if !has(series, "lastObservedTime") {
            e.push(Error::required(&p.child("lastObservedTime"), ""));
        }
    }
}

/// What events.k8s.io lets nobody change; upstream looks at the reason twice.
fn unchanged(new: &Value, old: &Value, e: &mut ErrorList) {
    const REFERENCE: &str = "core.v1.ObjectReference";
    let empty = json!({});
    for (key, shown, ty) in [
        ("regarding", "involvedObject", REFERENCE),
        ("reason", "reason", ""),
        ("note", "message", ""),
        ("deprecatedSource", "source", "core.v1.EventSource"),
        ("deprecatedFirstTimestamp", "firstTimestamp", ""),
        ("deprecatedLastTimestamp", "lastTimestamp", ""),
        ("deprecatedCount", "count", ""),
        ("reason", "reason", ""),
        ("type", "type", ""),
        ("eventTime", "eventTime", ""),
        ("action", "action", ""),
        ("related", "related", REFERENCE),
        ("reportingController", "reportingController", ""),
        ("reportingInstance", "reportingInstance", ""),
    ] {
        let optional = key == "related" && has(new, key) != has(old, key);
        if same(opt(new, key), opt(old, key)) && !optional {
            continue;
        }
        let p = Path::new(shown);
        e.push(match (opt(new, key), ty) {
            (Some(value), "") => Error::invalid(&p, value, IMMUTABLE),
            (None, "") => Error::invalid(&p, &json!(""), IMMUTABLE),
            (None, _) if key == "related" => Error::invalid(&p, &Value::Null, IMMUTABLE),
            (value, ty) => go::invalid(&p, value.unwrap_or(&empty), ty, IMMUTABLE),
        });
    }
}
