//! How server-side apply sees a type: which maps and lists it goes into, and how list items are named.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::ApplyError;
use super::element::element_text;
use crate::field::{go_float, go_quote, go_value, push_json, push_json_text};
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
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => {
                let mut out = String::from("v:");
                push_json(&mut out, scalar);
                Ok(out)
            }
        };
    };
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
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
        push_json_text(&mut out, key);
        out.push(':');
        push_json(&mut out, value);
    }
    out.push('}');
    Ok(out)
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
    let text = match (scalar, value) {
        (Scalar::IntOrString | Scalar::Quantity, Value::String(_) | Value::Number(_) | Value::Bool(_)) => return,
        (Scalar::IntOrString | Scalar::Quantity, _) => format!("expected any scalar, got {}", got(value)),
        (Scalar::Bool, Value::Bool(_)) => return,
        (Scalar::Bool, _) => format!("expected boolean, got {}", got(value)),
        (Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 | Scalar::Float32 | Scalar::Float64, value) => match value {
            Value::Number(_) => return,
            other => format!("expected numeric (int or float), got {}", go_type(other)),
        },
        (_, Value::String(_)) => return,
        _ => format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)),
    };
    errors.push(format!("{path}: {text}"));
}

/// Go's `%v` of the library's wrapped value.
fn got(value: &Value) -> String {
    format!("&{{{}}}", go_print(value))
}

/// Go's `%T` of a decoded JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::Null => "<nil>",
    }
}

/// Go's `%#v` of a decoded JSON value.
fn go_syntax(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(map) => {
            let parts = map.iter().map(|(k, v)| format!("{}:{}", go_quote(k), go_syntax(v))).collect();
            format!("{}{{{}}}", go_type(value), list(parts))
        }
        Value::Array(items) => format!("{}{{{}}}", go_type(value), list(items.iter().map(go_syntax).collect())),
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Number(n) if !n.is_i64() => n.as_f64().map_or_else(|| n.to_string(), go_float),
        other => go_value(other),
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
