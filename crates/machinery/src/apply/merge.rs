//! Merging an applied object into the live one, and taking fields out of it. Upstream's `TypedValue.Merge`, `RemoveItems` and
//! `EnsureNamedFieldsAreMembers`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::ApplyError;
use super::set::{Node, Set, children, has_children, is_member};
use super::typed::{Atom, Ty, atom, below, item_element};
use crate::schema::{List, TypeId, Types};

/// `config` over `live`.
pub(super) fn merge(types: &Types, ty: TypeId, live: &Value, config: &Value) -> Result<Value, ApplyError> {
    Ok(merge_values(types, Some(ty), Some(live), Some(config))?.unwrap_or(Value::Null))
}

fn merge_values(types: &Types, ty: Ty, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, ApplyError> {
    let leaf = || config.or(live).cloned();
    let sample = config.filter(|v| !v.is_null()).or(live);
    match atom(types, ty, sample) {
        atom @ (Atom::Struct(_) | Atom::Map(_)) => {
            let (a, b) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return Ok(leaf());
            }
            // What is live stays; what is applied goes over it.
            let mut out = Map::new();
            for (key, live) in a.into_iter().flatten() {
                let merged = match b.and_then(|m| m.get(key)) {
                    None => Some(live.clone()),
                    config => merge_values(types, below(&atom, key), Some(live), config)?,
                };
                out.extend(merged.map(|v| (key.clone(), v)));
            }
            for (key, config) in b.into_iter().flatten().filter(|(k, _)| a.is_none_or(|a| !a.contains_key(*k))) {
                out.extend(merge_values(types, below(&atom, key), None, Some(config))?.map(|v| (key.clone(), v)));
            }
            Ok(Some(Value::Object(out)))
        }
        Atom::List(list) => {
            let none: &[Value] = &[];
            let a = live.and_then(Value::as_array).map_or(none, Vec::as_slice);
            let b = config.and_then(Value::as_array).map_or(none, Vec::as_slice);
            if a.is_empty() && b.is_empty() {
                return Ok(leaf());
            }
            merge_lists(types, list, a, b).map(|items| Some(Value::Array(items)))
        }
        _ => Ok(leaf()),
    }
}

/// Items of both in an order that respects both: upstream's two-cursor walk, where shared items come in the applied order.
fn merge_lists(types: &Types, list: &List, live: &[Value], config: &[Value]) -> Result<Vec<Value>, ApplyError> {
    let name = |items: &[Value]| -> Result<Vec<String>, ApplyError> {
        items.iter().map(|i| item_element(types, list, i).map_err(ApplyError::Typed)).collect()
    };
    let (left, right) = (name(live)?, name(config)?);
    let index = |names: &[String]| -> BTreeMap<String, usize> { names.iter().enumerate().rev().map(|(i, n)| (n.clone(), i)).collect() };
    let (in_left, in_right) = (index(&left), index(&right));
    // What is live more than once is not merged into, but replaced.
    let twice: BTreeSet<&String> = left.iter().enumerate().filter(|(i, n)| in_left.get(*n) != Some(i)).map(|(_, n)| n).collect();
    let mut shared = right.iter().filter(|n| in_left.contains_key(*n));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&String> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len() + config.len());
    let item = |name: &String| -> Result<Option<Value>, ApplyError> {
        let a = if twice.contains(name) { Some(&Value::Null) } else { in_left.get(name).map(|i| &live[*i]) };
        merge_values(types, Some(list.elem), a, in_right.get(name).map(|i| &config[*i]))
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let name = &left[l];
            if *name == right[r] {
                merged.insert(name);
                out.extend(item(name)?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if in_right.contains_key(name) && next_shared.is_some_and(|n| n != name) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let name = &left[l];
            if !in_right.contains_key(name) {
                out.extend(merge_values(types, Some(list.elem), Some(&live[l]), None)?);
                l += 1;
                continue;
            }
            if merged.contains(name) {
                l += 1;
            }
        }
        if r < right.len() {
            let name = &right[r];
            merged.insert(name);
            out.extend(item(name)?);
            r += 1;
            if next_shared == Some(name) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}

/// `value` without the members of `set`.
pub(super) fn remove(types: &Types, ty: TypeId, value: &Value, set: &Set) -> Result<Value, ApplyError> {
    if set.is_empty() { Ok(value.clone()) } else { remove_in(types, Some(ty), value, set) }
}

fn remove_in(types: &Types, ty: Ty, value: &Value, set: &Set) -> Result<Value, ApplyError> {
    let atom = atom(types, ty, Some(value));
    match (&atom, value) {
        (Atom::Struct(_) | Atom::Map(_), Value::Object(map)) => {
            let mut out = Map::new();
            for (key, item) in map {
                match set.get(&format!("f:{key}")) {
                    None => {
                        out.insert(key.clone(), item.clone());
                    }
                    Some(node) if is_member(node) => {}
                    Some(Value::Object(subset)) => {
                        out.insert(key.clone(), remove_in(types, below(&atom, key), item, subset)?);
                    }
                    Some(_) => {}
                }
            }
            Ok(if out.is_empty() { Value::Null } else { Value::Object(out) })
        }
        (Atom::List(list), Value::Array(items)) => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let element = item_element(types, list, item).map_err(ApplyError::Typed)?;
                match set.get(&element) {
                    None => out.push(item.clone()),
                    Some(node) if is_member(node) => {}
                    Some(Value::Object(subset)) => out.push(remove_in(types, Some(list.elem), item, subset)?),
                    Some(_) => {}
                }
            }
            Ok(if out.is_empty() { Value::Null } else { Value::Array(out) })
        }
        (Atom::Scalar(_), _) => Ok(value.clone()),
        _ => Ok(Value::Null),
    }
}

/// Struct fields that have members below them become members too.
pub(super) fn with_named_fields(types: &Types, ty: TypeId, set: &Set) -> Set {
    named(types, Some(ty), set)
}

fn named(types: &Types, ty: Ty, set: &Set) -> Set {
    let mut out = Set::new();
    // The form of the type itself: atomic structs are structs here.
    let atom = match ty.map(|id| types.get(id)) {
        Some(crate::schema::Type::Struct(s)) => Atom::Struct(s),
        _ => atom(types, ty, Some(&Value::Null)),
    };
    for (element, node) in set {
        let field = element.strip_prefix("f:");
        let child_ty = match field {
            Some(name) => below(&atom, name),
            None => below(&atom, ""),
        };
        let declared = matches!((&atom, field), (Atom::Struct(s), Some(name)) if s.field(name).is_some());
        let inner: Set = children(node).map(|(k, v)| (k.clone(), v.clone())).collect();
        let made = Node { member: is_member(node) || (declared && has_children(node)), children: named(types, child_ty, &inner) };
        if let Some(value) = made.into_value() {
            out.insert(element.clone(), value);
        }
    }
    out
}
