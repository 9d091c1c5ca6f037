//! Strategic merge patch: lists merge by key where the type says so, and directives (`$patch`, `$retainKeys`,
//! `$setElementOrder/x`, `$deleteFromPrimitiveList/x`) say the rest. Upstream's `strategicpatch`, by schema.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::PatchError;
use crate::apply::go_print;
use crate::json;
use crate::schema::{Field, Type, TypeId, Types};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder";
const ORDER_PREFIX: &str = "$setElementOrder/";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of type `ty`. The strings are strict errors of the patch.
pub fn strategic(types: &Types, ty: TypeId, object: &Value, patch: &[u8]) -> Result<(Value, Vec<String>), PatchError> {
    let parsed = json::parse(patch).map_err(|e| PatchError::Malformed(e.to_string()))?;
    let Value::Object(map) = parsed.value else {
        let found = crate::json::go_kind(&parsed.value);
        return Err(PatchError::Malformed(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    let merged = Merge { types }.maps(original, map, Some(ty))?;
    Ok((Value::Object(merged), parsed.strict))
}

struct Merge<'t> {
    types: &'t Types,
}

/// How a field patches.
#[derive(Default)]
struct Rule<'a> {
    /// The type below: of the struct, of the map's values or of the list's items.
    below: Option<TypeId>,
    merge: bool,
    replace: bool,
    key: &'a str,
}

fn bad(text: impl Into<String>) -> PatchError {
    PatchError::Directive(text.into())
}

impl<'t> Merge<'t> {
    fn rule(&self, ty: Option<TypeId>, name: &str) -> Rule<'t> {
        let types = self.types;
        match ty.map(|id| types.get(id)) {
            Some(Type::Struct(s)) => s.field(name).map(|f| self.field_rule(f)).unwrap_or_default(),
            Some(Type::Map(m)) => Rule { below: Some(m.elem), ..Rule::default() },
            _ => Rule::default(),
        }
    }

    fn field_rule(&self, field: &'t Field) -> Rule<'t> {
        let below = match self.types.get(field.ty) {
            Type::List(list) => list.elem,
            _ => field.ty,
        };
        Rule { below: Some(below), merge: field.patch_merge, replace: false, key: &field.merge_key }
    }

    fn maps(&self, mut original: Object, mut patch: Object, ty: Option<TypeId>) -> Result<Object, PatchError> {
        if let Some(directive) = patch.get(PATCH) {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(PATCH);
                    Ok(patch)
                }
                Some("delete") => Ok(Object::new()),
                _ => Err(unknown_patch_type(directive, &patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, ty)?;
        for (key, value) in patch {
            let (name, deleting) = key.strip_prefix(DELETE_PREFIX).map_or((key.as_str(), false), |n| (n, true));
            if value.is_null() {
                original.remove(name);
                continue;
            }
            let merged = match (original.remove(name), value) {
                (Some(Value::Object(a)), Value::Object(b)) => {
                    let rule = self.rule(ty, name);
                    if rule.replace { Value::Object(b) } else { Value::Object(self.maps(a, b, rule.below)?) }
                }
                (Some(Value::Array(a)), Value::Array(b)) => {
                    let rule = self.rule(ty, name);
                    if rule.merge || deleting { Value::Array(self.lists(a, b, &rule, deleting)?) } else { Value::Array(b) }
                }
                (Some(old), _) if deleting => old,
                (None, _) if deleting => continue,
                (_, value) => drop_directives(value)?,
            };
            original.insert(name.to_owned(), merged);
        }
        Ok(original)
    }

    /// `$setElementOrder/x` together with the patch of `x`.
    fn ordered_lists(&self, original: &mut Object, patch: &mut Object, ty: Option<TypeId>) -> Result<(), PatchError> {
        let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER_PREFIX)).cloned().collect();
        for directive in directives {
            let name = directive.get(ORDER_PREFIX.len()..).unwrap_or("");
            let order = expect_list(patch.remove(&directive).unwrap_or(Value::Null))?;
            let patched = patch.remove(name).filter(|v| !v.is_null()).map(expect_list).transpose()?;
            let live = original.remove(name).filter(|v| !v.is_null()).map(expect_list).transpose()?;
            let rule = self.rule(ty, name);
            if let Some(patched) = &patched {
                check_order(patched, &order, rule.key)?;
            }
            let merged = match (live.clone(), patched) {
                (None, None) => continue,
                (Some(live), None) => live,
                (None, Some(patched)) => match drop_directives(Value::Array(patched))? {
                    Value::Array(items) => items,
                    _ => continue,
                },
                (Some(live), Some(patched)) if rule.merge => self.lists(live, patched, &rule, false)?,
                (Some(_), Some(patched)) => patched,
            };
            let places = Places::of(&order, rule.key);
            let (mine, server): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|i| places.get(i).is_some());
            let sorted = normalise_order(mine, server, &order, live.as_deref().unwrap_or(&[]), rule.key);
            original.insert(name.to_owned(), Value::Array(sorted));
        }
        Ok(())
    }

    fn lists(&self, original: Vec<Value>, patch: Vec<Value>, rule: &Rule<'_>, deleting: bool) -> Result<Vec<Value>, PatchError> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let of_maps = original.iter().chain(&patch).any(Value::is_object);
        if !of_maps {
            let places = Places::of(&patch, "");
            if deleting {
                return Ok(original.into_iter().filter(|v| places.get(v).is_none()).collect());
            }
            let mut met = Places::of(&[], "");
            let merged: Vec<Value> = original.iter().chain(&patch).filter(|item| met.add(item, 0)).cloned().collect();
            let (mine, server): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|i| places.get(i).is_some());
            return Ok(normalise_order(mine, server, &patch, &original, ""));
        }
        if rule.key.is_empty() {
            return Err(bad("cannot merge lists without merge key"));
        }
        let (server_order, patch) = special_items(original, patch, rule.key)?;
        let mut merged = server_order.clone();
        let mut places = Places::of(&merged, rule.key);
        for item in &patch {
            let Value::Object(map) = item else {
                return Err(bad(format!("cannot merge different types of list items: {}", go_print(item))));
            };
            if !map.contains_key(rule.key) {
                return Err(no_merge_key(item, rule.key));
            }
            match places.get(item) {
                Some(at) => {
                    let old = merged[at].as_object().cloned().unwrap_or_default();
                    merged[at] = Value::Object(self.maps(old, map.clone(), rule.below)?);
                }
                None => {
                    merged.push(drop_directives(item.clone())?);
                    // A merge key of null is dropped with all nulls: such an item is not found again.
                    places.add(merged.last().unwrap_or(&Value::Null), merged.len() - 1);
                }
            }
        }
        let places = Places::of(&patch, rule.key);
        let (mine, server): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|i| places.get(i).is_some());
        Ok(normalise_order(mine, server, &patch, &server_order, rule.key))
    }
}

fn unknown_patch_type(directive: &Value, map: &Object) -> PatchError {
    bad(format!("unknown patch type: {} in map: {}", go_print(directive), go_print(&Value::Object(map.clone()))))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    bad(format!("map: {} does not contain declared merge key: {key}", go_print(item)))
}

fn expect_list(value: Value) -> Result<Vec<Value>, PatchError> {
    let found = match &value {
        Value::Array(_) => "",
        Value::Object(_) => "map[string]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null => "<nil>",
    };
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(bad(format!("expected a []interface {{}}, but received a {found}"))),
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let Value::Array(keys) = keys else { return Err(malformed()) };
    let kept = |name: &str| keys.iter().any(|k| k == name);
    let stray = patch.iter().any(|(k, v)| !v.is_null() && !k.starts_with(DELETE_PREFIX) && !k.starts_with(ORDER) && !kept(k));
    if stray {
        return Err(malformed());
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// Items with a `$patch` of their own: deletes are carried out, a replace empties the original.
fn special_items(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let (mut deleted, mut replace) = (Places::of(&[], key), false);
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                if item.get(key).is_none() {
                    return Err(no_merge_key(&item, key));
                }
                deleted.add(&item, 0);
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(bad("merging lists cannot yet be specified in the patch")),
            _ => return Err(unknown_patch_type(directive, item.as_object().unwrap_or(&Object::new()))),
        }
    }
    if !deleted.at.is_empty() {
        original.retain(|o| deleted.get(o).is_none());
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

/// A value that is new as a whole: its nulls and directives go.
fn drop_directives(value: Value) -> Result<Value, PatchError> {
    match value {
        Value::Object(map) => {
            let mut out = Object::new();
            // With a directive of its own there is nothing to replace or delete, and nothing comes of it.
            if map.contains_key(PATCH) {
                return Ok(Value::Null);
            }
            for (key, value) in map {
                if value.is_null() || key == RETAIN_KEYS || key.starts_with(ORDER_PREFIX) || key.starts_with(DELETE_PREFIX) {
                    continue;
                }
                out.insert(key, drop_directives(value)?);
            }
            Ok(Value::Object(out))
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter(|i| i.get(PATCH).is_none());
            kept.map(drop_directives).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        other => Ok(other),
    }
}

/// Where items stand in a list, by merge key, or by value where there is none: long lists are merged in a time that grows with
/// them, not with their square.
struct Places<'a> {
    key: &'a str,
    at: BTreeMap<String, usize>,
}

impl<'a> Places<'a> {
    fn of(items: &[Value], key: &'a str) -> Self {
        let mut places = Self { key, at: BTreeMap::new() };
        for (at, item) in items.iter().enumerate() {
            places.add(item, at);
        }
        places
    }

    fn identity(&self, item: &Value) -> Option<String> {
        if self.key.is_empty() { Some(item.to_string()) } else { item.get(self.key).map(Value::to_string) }
    }

    /// Whether it is the first of its identity.
    fn add(&mut self, item: &Value, at: usize) -> bool {
        let Some(identity) = self.identity(item) else { return false };
        match self.at.entry(identity) {
            Entry::Vacant(free) => {
                free.insert(at);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    fn get(&self, item: &Value) -> Option<usize> {
        self.at.get(&self.identity(item)?).copied()
    }
}

fn check_order(patched: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if order.is_empty() || patched.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = patched.iter().filter(|i| i.get(PATCH).is_none_or(|d| d != "delete")).collect();
    let mut next = 0;
    for item in order {
        let same = kept.get(next).is_some_and(|k| if key.is_empty() { *k == item } else { k.get(key) == item.get(key) });
        next += usize::from(same);
    }
    if next < kept.len() {
        let print = |items: &[Value]| go_print(&Value::Array(items.to_vec()));
        return Err(bad(format!("The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n", print(patched), print(order))));
    }
    Ok(())
}

/// Items of the patch in its order, those only the server has in theirs, interleaved as the server had them.
fn normalise_order(mut mine: Vec<Value>, mut server: Vec<Value>, order: &[Value], server_order: &[Value], key: &str) -> Vec<Value> {
    let (places, on_server) = (Places::of(order, key), Places::of(server_order, key));
    mine.sort_by_cached_key(|i| places.get(i));
    server.sort_by_cached_key(|i| on_server.get(i));
    let mut out = Vec::with_capacity(mine.len() + server.len());
    let (mut left, mut right) = (server.into_iter().peekable(), mine.into_iter().peekable());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => match (on_server.get(a), on_server.get(b)) {
                (Some(x), Some(y)) => x < y,
                _ => false,
            },
        };
        out.extend(if take_left { left.next() } else { right.next() });
    }
}
