//! Short ways into JSON trees, so that a rule reads as one line. Null reads as absent, as it does once Go has decoded it; a
//! value of another type than asked for reads as absent too, because decoding has refused it before.

use serde_json::{Map, Value};

/// A string, or `""`.
pub fn s<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or("")
}

/// A value that is there and not null.
pub fn opt<'a>(v: &'a Value, key: &str) -> Option<&'a Value> {
    v.get(key).filter(|v| !v.is_null())
}

/// As [`opt`], at a dotted path.
pub fn at<'a>(v: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(v, |v, key| opt(v, key))
}

pub fn opt_s<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    v.get(key).and_then(Value::as_str)
}

pub fn has(v: &Value, key: &str) -> bool {
    opt(v, key).is_some()
}

pub fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The strings of a list.
pub fn strings<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = &'a str> + Clone {
    list(v, key).iter().map(|v| v.as_str().unwrap_or(""))
}

pub fn int(v: &Value, key: &str) -> Option<i64> {
    v.get(key).and_then(Value::as_i64)
}

/// A number that is no pointer in Go.
pub fn int0(v: &Value, key: &str) -> i64 {
    int(v, key).unwrap_or(0)
}

pub fn flag(v: &Value, key: &str) -> bool {
    v.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub fn flag_is(v: &Value, key: &str, wanted: bool) -> bool {
    v.get(key).and_then(Value::as_bool) == Some(wanted)
}

pub fn map<'a>(v: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    v.get(key).and_then(Value::as_object)
}

pub fn entries<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map(v, key).into_iter().flat_map(Map::iter)
}

/// Nothing there: absent, null, or an empty list or map.
pub fn is_empty(v: &Value, key: &str) -> bool {
    match opt(v, key) {
        None => true,
        Some(Value::Array(a)) => a.is_empty(),
        Some(Value::Object(m)) => m.is_empty(),
        Some(Value::String(t)) => t.is_empty(),
        Some(_) => false,
    }
}

/// Equality of decoded fields as Go's `apiequality.Semantic` has it: null, empty lists and maps, and absence are the same. Structures
/// behind pointers need [`super::equal::semantic`].
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn hollow(v: Option<&Value>) -> bool {
        match v {
            None | Some(Value::Null) => true,
            Some(Value::Array(a)) => a.is_empty(),
            Some(Value::Object(m)) => m.is_empty(),
            _ => false,
        }
    }
    match (a, b) {
        _ if hollow(a) && hollow(b) => true,
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.keys().chain(y.keys().filter(|k| !x.contains_key(*k))).all(|k| same(x.get(k), y.get(k)))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same(Some(p), Some(q))),
        (a, b) => a == b,
    }
}

pub fn same_at(a: &Value, b: &Value, path: &str) -> bool {
    same(at(a, path), at(b, path))
}

/// The object at a key, to change it.
pub fn obj_mut<'a>(v: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    v.get_mut(key).and_then(Value::as_object_mut)
}

pub fn list_mut<'a>(v: &'a mut Value, key: &str) -> &'a mut [Value] {
    v.get_mut(key).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

pub fn set(v: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = v.as_object_mut() {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets a field that is absent, null or an empty string.
pub fn set_default(v: &mut Value, key: &str, value: impl Into<Value>) {
    if opt(v, key).is_none_or(|v| v.as_str() == Some("")) {
        set(v, key, value);
    }
}

pub fn remove(v: &mut Value, key: &str) {
    if let Some(map) = v.as_object_mut() {
        map.remove(key);
    }
}

/// Copies `key` from `from` to `to`, also its absence.
pub fn keep(to: &mut Value, from: &Value, key: &str) {
    match (from.get(key), to.get_mut(key)) {
        (Some(value), Some(there)) => assign(there, value),
        (Some(value), None) => set(to, key, value.clone()),
        (None, _) => remove(to, key),
    }
}

/// Makes `to` what `from` is, in the memory `to` has where that fits. What a status update sends along of a spec is nearly what
/// there is: to change the difference costs a third of copying the whole and freeing what was sent.
pub fn assign(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            if to.keys().any(|key| !from.contains_key(key)) {
                to.retain(|key, _| from.contains_key(key));
            }
            if to.len() == from.len() {
                // The same keys in the same order.
                to.iter_mut().zip(from).for_each(|((_, to), (_, from))| assign(to, from));
                return;
            }
            for (key, value) in from {
                match to.get_mut(key) {
                    Some(there) => assign(there, value),
                    None => drop(to.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(to), Value::Array(from)) => {
            to.truncate(from.len());
            to.iter_mut().zip(from).for_each(|(to, from)| assign(to, from));
            to.extend(from.get(to.len()..).unwrap_or_default().iter().cloned());
        }
        (to, from) if *to != *from => *to = from.clone(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(json!(null)), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from), "[ab]".prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_assigned_is_what_was_given(mut to in value(), from in value()) {
            assign(&mut to, &from);
            prop_assert_eq!(&to, &from);
            let (mut holder, mut other) = (json!({"a": to}), json!({"a": from}));
            keep(&mut holder, &other, "a");
            prop_assert_eq!(&holder, &other);
            remove(&mut other, "a");
            keep(&mut holder, &other, "a");
            prop_assert_eq!(&holder, &other);
        }
    }

    #[test]
    fn hollow_values_are_the_same_as_none() {
        for (a, b, wanted) in [
            (json!({"a": null}), json!({}), true),
            (json!({"a": []}), json!({"a": {}}), true),
            (json!({"a": [1]}), json!({}), false),
            (json!({"a": {"b": ""}}), json!({"a": {}}), false),
            (json!({"a": 0}), json!({}), false),
        ] {
            assert_eq!(same(Some(&a), Some(&b)), wanted, "{a} {b}");
        }
    }
}
