//! What changed between two objects, as sets of paths; and which fields an object sets. Upstream's `TypedValue.Compare` and
//! `ToFieldSet`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::ApplyError;
use super::set::{Node, Set};
use super::typed::{Atom, Ty, atom, below, item_element};
use crate::schema::{List, Scalar, Type, TypeId, Types};

type Fields = Map<String, Value>;

/// Paths that were added, changed and removed.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

/// Compares two objects of one type.
pub(super) fn compare(types: &Types, ty: TypeId, old: &Value, new: &Value) -> Result<Comparison, ApplyError> {
    compare_but(types, ty, old, new, &[])
}

/// As [`compare`], but for what lies at or below these members of members (`metadata.labels`), which nobody asks about. An error
/// in there is not seen.
pub(super) fn compare_but(types: &Types, ty: TypeId, old: &Value, new: &Value, but: &[String]) -> Result<Comparison, ApplyError> {
    let mut nodes = Nodes::default();
    let walk = Walk { types };
    let (upper, sides) = (atom(types, Some(ty), Some(new)), (old.as_object(), new.as_object()));
    match (&upper, sides) {
        (Atom::Struct(_), (Some(old), Some(new))) if !but.is_empty() => {
            let but: Vec<&str> = but.iter().map(String::as_str).collect();
            walk.maps_but(&upper, (old, new), &but, &mut nodes)?;
        }
        _ => walk.compare(Some(ty), Some(old), Some(new), &mut nodes)?,
    }
    Ok(Comparison { added: nodes.added.children, modified: nodes.modified.children, removed: nodes.removed.children })
}

#[derive(Default)]
struct Nodes {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Nodes {
    fn attach(&mut self, element: &str, child: Nodes) {
        self.added.attach(element, child.added);
        self.modified.attach(element, child.modified);
        self.removed.attach(element, child.removed);
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.member = true,
            (_, None) => self.removed.member = true,
            (Some(a), Some(b)) if !same(a, b) => self.modified.member = true,
            _ => {}
        }
    }
}

/// Equality as Go has it: `1` and `1.0` are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => x.len() == y.len() && x.iter().zip(y).all(|((k, a), (l, b))| k == l && same(a, b)),
        _ => a == b,
    }
}

#[derive(Clone, Copy)]
struct Walk<'t> {
    types: &'t Types,
}

impl Walk<'_> {
    fn compare(self, ty: Ty, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Result<(), ApplyError> {
        let (Some(first), both_same_form) = (new.or(old), same_form(self.types, ty, old, new)) else { return Ok(()) };
        if both_same_form {
            let sample = if first.is_null() { old.filter(|v| !v.is_null()).or(new) } else { Some(first) };
            self.form(ty, sample, old, new, out)?;
        } else {
            // Another form altogether: what was below the old goes, what is below the new comes; but nulls take any form.
            let parts = |v: &Value| v.as_object().is_some_and(|map| !map.is_empty());
            if old.is_some_and(parts) {
                self.form(ty, old, old, None, out)?;
            }
            if new.is_some_and(parts) {
                self.form(ty, new, None, new, out)?;
            }
            out.modified.member = old.into_iter().chain(new).any(|v| !parts(v) && !v.is_null());
        }
        if old.is_none() {
            out.added.member = true;
        } else if new.is_none() {
            out.removed.member = true;
        }
        Ok(())
    }

    fn form(self, ty: Ty, sample: Option<&Value>, old: Option<&Value>, new: Option<&Value>, out: &mut Nodes) -> Result<(), ApplyError> {
        let atom = atom(self.types, ty, sample);
        match &atom {
            Atom::Struct(_) | Atom::Map(_) => {
                let (a, b) = (map_of(old), map_of(new));
                if a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                    out.leaf(old, new);
                    return Ok(());
                }
                self.maps(&atom, a, b, out)
            }
            Atom::List(list) => {
                let (a, b) = (list_of(old), list_of(new));
                if a.is_empty() && b.is_empty() {
                    out.leaf(old, new);
                    return Ok(());
                }
                if a == b {
                    return Ok(());
                }
                self.lists(list, a, b, out)
            }
            Atom::Scalar(_) | Atom::AtomicMap | Atom::AtomicList => {
                out.leaf(old, new);
                Ok(())
            }
        }
    }

    /// As [`Self::maps`] of two maps, but for what lies at these paths.
    fn maps_but(self, atom: &Atom<'_>, (old, new): (&Fields, &Fields), but: &[&str], out: &mut Nodes) -> Result<(), ApplyError> {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys.into_iter().filter(|key| !but.contains(&key.as_str())) {
            let (a, b) = (old.get(key), new.get(key));
            let inner = |path: &&'_ str| path.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let below_it: Vec<&str> = but.iter().filter(|path| inner(path)).map(|path| &path[key.len() + 1..]).collect();
            let ty = below(atom, key);
            let mut child = Nodes::default();
            match (self::atom(self.types, ty, b.or(a)), a.and_then(Value::as_object), b.and_then(Value::as_object)) {
                (upper @ Atom::Struct(_), Some(a), Some(b)) if !below_it.is_empty() => {
                    self.maps_but(&upper, (a, b), &below_it, &mut child)?;
                }
                _ => self.compare(ty, a, b, &mut child)?,
            }
            if !child.is_empty() {
                out.attach(&format!("f:{key}"), child);
            }
        }
        Ok(())
    }

    /// One walk over two sorted maps.
    fn maps(
        self,
        atom: &Atom<'_>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
        out: &mut Nodes,
    ) -> Result<(), ApplyError> {
        let mut left = old.into_iter().flatten().peekable();
        let mut right = new.into_iter().flatten().peekable();
        loop {
            let key = match (left.peek(), right.peek()) {
                (Some((a, _)), Some((b, _))) => (*a).min(*b),
                (Some((a, _)), None) => *a,
                (None, Some((b, _))) => *b,
                (None, None) => return Ok(()),
            };
            let a = left.next_if(|(k, _)| *k == key).map(|(_, v)| v);
            let b = right.next_if(|(k, _)| *k == key).map(|(_, v)| v);
            // Nearly everything is the same: that is seen without asking what it is.
            if a.is_some_and(|a| !a.is_object() && Some(a) == b) {
                continue;
            }
            let mut child = Nodes::default();
            self.compare(below(atom, key), a, b, &mut child)?;
            if !(child.is_empty()) {
                out.attach(&format!("f:{key}"), child);
            }
        }
    }

    fn lists(self, list: &List, old: &[Value], new: &[Value], out: &mut Nodes) -> Result<(), ApplyError> {
        let mut items: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            let element = item_element(self.types, list, item).map_err(ApplyError::Typed)?;
            items.entry(element).or_default().0.push(item);
        }
        for item in new {
            let element = item_element(self.types, list, item).map_err(ApplyError::Typed)?;
            items.entry(element).or_default().1.push(item);
        }
        for (element, (a, b)) in items {
            let mut child = Nodes::default();
            match (a.as_slice(), b.as_slice()) {
                ([] | [_], [] | [_]) => self.compare(Some(list.elem), a.first().copied(), b.first().copied(), &mut child)?,
                ([_, _, ..], [_, _, ..]) => child.modified.member = a.len() != b.len() || !a.iter().zip(b).all(|(a, b)| same(a, b)),
                ([_, _, ..], _) => {
                    if let Some(item) = b.first() {
                        self.compare(Some(list.elem), None, Some(item), &mut child)?;
                    }
                    child.removed.member = true;
                }
                _ => {
                    if let Some(item) = a.first() {
                        self.compare(Some(list.elem), Some(item), None, &mut child)?;
                    }
                    child.added.member = true;
                }
            }
            out.attach(&element, child);
        }
        Ok(())
    }
}

impl Nodes {
    fn is_empty(&self) -> bool {
        let empty = |n: &Node| !n.member && n.children.is_empty();
        empty(&self.added) && empty(&self.modified) && empty(&self.removed)
    }
}

fn map_of(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn list_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Without a schema two values may differ in form; a missing one or a null takes the form of the other.
fn same_form(types: &Types, ty: Ty, old: Option<&Value>, new: Option<&Value>) -> bool {
    let untyped = ty.is_none_or(|id| matches!(types.get(id), Type::Scalar(Scalar::FieldsV1)));
    let form = |v: &Value| match v {
        Value::Object(_) => 0,
        Value::Array(_) => 1,
        _ => 2,
    };
    match (old, new) {
        (Some(a), Some(b)) if untyped => form(a) == form(b),
        _ => true,
    }
}

/// The fields an object sets: upstream's `ToFieldSet`.
pub(super) fn field_set(types: &Types, ty: TypeId, value: &Value) -> Result<Set, ApplyError> {
    let mut node = Node::default();
    fill(types, Some(ty), value, &mut node)?;
    Ok(node.children)
}

fn fill(types: &Types, ty: Ty, value: &Value, out: &mut Node) -> Result<(), ApplyError> {
    let atom = atom(types, ty, Some(value));
    match &atom {
        Atom::Struct(_) | Atom::Map(_) => {
            for (key, item) in value.as_object().into_iter().flatten() {
                let mut child = Node::default();
                fill(types, below(&atom, key), item, &mut child)?;
                let declared = matches!(&atom, Atom::Struct(s) if s.field(key).is_some());
                child.member |= item.is_null() || item.as_object().is_some_and(Map::is_empty) || !declared;
                out.attach(&format!("f:{key}"), child);
            }
        }
        Atom::List(list) => {
            let mut seen = std::collections::BTreeMap::new();
            for item in value.as_array().into_iter().flatten() {
                let element = item_element(types, list, item).map_err(ApplyError::Typed)?;
                seen.entry(element).or_insert_with(Vec::new).push(item);
            }
            for (element, items) in seen {
                let mut child = Node::default();
                if let [item] = items.as_slice() {
                    fill(types, Some(list.elem), item, &mut child)?;
                }
                child.member = true;
                out.attach(&element, child);
            }
        }
        Atom::Scalar(_) | Atom::AtomicMap | Atom::AtomicList => out.member = true,
    }
    Ok(())
}
