//! How server-side apply sees a type: which maps and lists it goes into, and how list items are named.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::ApplyError;
use super::set::element_text;
use crate::field::go_value;
use crate::schema::{List, Omit, Scalar, Struct, Topology, Type, TypeId, Types};

/// A type, or `None` where the schema says nothing: maps are then separable and lists atomic.
pub(super) type Ty = Option<TypeId>;

/// A value's form.
pub(super) enum Atom<'t> {
    Scalar(Option<Scalar>),
    /// Compared and owned whole.
    AtomicMap,
    AtomicList,
    Struct(&'t Struct),
    Map(Ty),
    List(&'t List),
}

/// The form of a value of this type; where there is no schema the value decides.
pub(super) fn atom<'t>(types: &'t Types, ty: Ty, value: Option<&Value>) -> Atom<'t> {
    match ty.map(|id| types.get(id)) {
        Some(Type::Struct(s)) if s.atomic => Atom::AtomicMap,
        Some(Type::Struct(s)) => Atom::Struct(s),
        Some(Type::Map(m)) if m.atomic => Atom::AtomicMap,
        Some(Type::Map(m)) => Atom::Map(Some(m.elem)),
        Some(Type::List(l)) if l.topology == Topology::Atomic => Atom::AtomicList,
        Some(Type::List(l)) => Atom::List(l),
        // `RawExtension` and the like are owned whole.
        Some(Type::Any | Type::Either(_)) => Atom::Scalar(None),
        Some(Type::Scalar(Scalar::FieldsV1)) | None => match value {
            Some(Value::Object(_)) => Atom::Map(None),
            Some(Value::Array(_)) => Atom::AtomicList,
            _ => Atom::Scalar(None),
        },
        Some(Type::Scalar(s)) => Atom::Scalar(Some(*s)),
    }
}

/// The type of a field or entry.
pub(super) fn below(atom: &Atom<'_>, key: &str) -> Ty {
    match atom {
        Atom::Struct(s) => s.field(key).map(|f| f.ty),
        Atom::Map(elem) => *elem,
        Atom::List(l) => Some(l.elem),
        _ => None,
    }
}

/// The path element of a list item: `k:{"name":"c"}` or `v:"x"`.
pub(super) fn item_element(types: &Types, list: &List, item: &Value) -> Result<String, String> {
    let Topology::Map(keys) = &list.topology else {
        return match item {
            Value::Object(_) | Value::Array(_) => Err("set: only scalars are allowed".to_owned()),
            Value::Null => Err("associative list may not have null elements".to_owned()),
            scalar => Ok(format!("v:{scalar}")),
        };
    };
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have null elements".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut named: Vec<(&str, Cow<'_, Value>)> = Vec::with_capacity(keys.len());
    for key in keys {
        let field = || types.get(list.elem).as_struct().and_then(|s| s.field(key));
        // The published schema gives a field that is no pointer and never omitted its zero as default.
        let zero = || field().filter(|f| !f.pointer && f.omit == Omit::Never).and_then(|f| crate::decode::zero_field(types, f));
        let default = || field()?.default.as_ref().map(Cow::Borrowed);
        match map.get(key).map(Cow::Borrowed).or_else(default).or_else(|| zero().map(Cow::Owned)) {
            Some(value) => named.push((key, value)),
            None => {
                return Err(format!(
                    "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                ));
            }
        }
    }
    named.sort_unstable_by_key(|(key, _)| *key);
    let mut out = String::from("k:{");
    for (at, (key, value)) in named.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(&mut out, key);
        out.push(':');
        match &**value {
            Value::String(text) => push_text(&mut out, text),
            other => out.push_str(&other.to_string()),
        }
    }
    out.push('}');
    Ok(out)
}

/// A JSON string.
fn push_text(out: &mut String, text: &str) {
    if text.bytes().any(|c| c < b' ' || c == b'"' || c == b'\\') {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// Checks an applied object against its type, as upstream's typed parser does: all errors, in its words.
pub(super) fn validate(types: &Types, ty: TypeId, value: &Value) -> Result<(), ApplyError> {
    let mut errors = Vec::new();
    check(types, Some(ty), value, &At::Root, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(|e| format!("  {e}")).collect();
    let text = if errors.len() == 1 { errors[0].clone() } else { format!("errors:\n{}", lines.join("\n")) };
    Err(ApplyError::Typed(text))
}

/// Where a value is; a text only in an error.
enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
    Item(&'a At<'a>, &'a str),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
            Self::Item(above, element) => write!(f, "{above}{}", element_text(element)),
        }
    }
}

fn check(types: &Types, ty: Ty, value: &Value, path: &At<'_>, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let atom = match ty.map(|id| types.get(id)) {
        // Atomic maps and lists are still checked inside.
        Some(Type::Struct(s)) => Atom::Struct(s),
        Some(Type::Map(m)) => Atom::Map(Some(m.elem)),
        Some(Type::List(l)) => Atom::List(l),
        _ => atom(types, ty, Some(value)),
    };
    match (&atom, value) {
        (Atom::Struct(s), Value::Object(map)) => {
            for (key, item) in map {
                let at = At::Field(path, key);
                match s.field(key) {
                    Some(field) => check(types, Some(field.ty), item, &at, errors),
                    None if s.preserve_unknown => {}
                    None => errors.push(format!("{at}: field not declared in schema")),
                }
            }
        }
        (Atom::Map(elem), Value::Object(map)) => {
            for (key, item) in map {
                check(types, *elem, item, &At::Field(path, key), errors);
            }
        }
        (Atom::Struct(_) | Atom::Map(_) | Atom::AtomicMap, other) => errors.push(format!("{path}: expected map, got {}", got(other))),
        (Atom::List(list), Value::Array(items)) => check_items(types, list, items, path, errors),
        (Atom::List(_), other) => errors.push(format!("{path}: expected list, got {}", got(other))),
        (Atom::Scalar(Some(scalar)), other) => check_scalar(*scalar, other, path, errors),
        (Atom::Scalar(None) | Atom::AtomicList, _) => {}
    }
}

fn check_items(types: &Types, list: &List, items: &[Value], path: &At<'_>, errors: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if list.topology == Topology::Atomic {
            check(types, Some(list.elem), item, &At::Index(path, index), errors);
            continue;
        }
        match item_element(types, list, item) {
            Ok(element) => {
                check_new(&seen, &element, path, errors);
                check(types, Some(list.elem), item, &At::Item(path, &element), errors);
                seen.insert(element);
            }
            Err(why) => {
                errors.push(format!("{path}: element {index}: {why}"));
                return;
            }
        }
    }
}

fn check_new(seen: &BTreeSet<String>, element: &str, path: &At<'_>, errors: &mut Vec<String>) {
    if seen.contains(element) {
        errors.push(format!("{path}: duplicate entries for key {}", element_text(element)));
    }
}

fn check_scalar(scalar: Scalar, value: &Value, path: &At<'_>, errors: &mut Vec<String>) {
    let expected = match (scalar, value) {
        (Scalar::IntOrString | Scalar::Quantity, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
        (Scalar::IntOrString | Scalar::Quantity, _) => "scalar",
        (Scalar::Bool, Value::Bool(_)) => return,
        (Scalar::Bool, _) => "boolean",
        (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 | Scalar::Float32 | Scalar::Float64, Value::Number(_)) => return,
        (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 | Scalar::Float32 | Scalar::Float64, _) => {
            "numeric (int or float)"
        }
        (_, Value::String(_)) => return,
        _ => "string",
    };
    errors.push(format!("{path}: expected {expected}, got {}", got(value)));
}

/// A value as Go's `%v` or `%T` shows it in these texts.
fn got(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => format!("&{{{}}}", go_print(value)),
        Value::String(_) => "string".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(n) if n.is_f64() => "float".to_owned(),
        Value::Number(_) => "int".to_owned(),
        Value::Null => "null".to_owned(),
    }
}

/// Go's `%v` of a decoded JSON value: `map[a:b c:[1 2]]`.
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_print(v))).collect();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::String(s) => s.clone(),
        Value::Null => "<nil>".to_owned(),
        other => go_value(other),
    }
}
