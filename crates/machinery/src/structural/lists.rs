//! What list types promise: items of sets and keys of associative lists are unique. Upstream's
//! `structurallisttype.ValidateListSetsAndMaps`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ListType, Place, Schema};
use crate::field::{Error, ErrorList};

impl Schema {
    /// Duplicates anywhere below.
    pub(super) fn check_lists(&self, value: &Value, at: &Place<'_>, errors: &mut ErrorList) {
        match value {
            Value::Object(map) => {
                for (name, item) in map {
                    if let Some(property) = self.properties.get(name) {
                        property.check_lists(item, &at.child(name), errors);
                    } else if let Some(schema) = self.additional_schema() {
                        schema.check_lists(item, &at.key(name), errors);
                    }
                }
            }
            Value::Array(items) => {
                match self.list_type {
                    Some(ListType::Set) => {
                        for index in repeated(items.iter()) {
                            errors.push(at.index(index).with(|p| Error::duplicate(p, &items[index])));
                        }
                    }
                    Some(ListType::Map) => self.check_keys(items, at, errors),
                    Some(ListType::Atomic) | None => {}
                }
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.check_lists(item, &at.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }

    fn check_keys(&self, items: &[Value], at: &Place<'_>, errors: &mut ErrorList) {
        if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
            const NOT_AN_OBJECT: &str = "must be an object for an array of list-type map";
            errors.push(at.index(index).with(|p| Error::invalid(p, &items[index], NOT_AN_OBJECT)));
            return;
        }
        let keys: Vec<Value> = items.iter().map(|item| Value::Object(self.key_of(item))).collect();
        for index in repeated(keys.iter()) {
            errors.push(at.index(index).with(|p| Error::duplicate(p, &keys[index])));
        }
    }

    /// The keys of an associative list's item that are there.
    pub(super) fn key_of(&self, item: &Value) -> Map<String, Value> {
        self.list_map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect()
    }
}

/// Where each value comes up a second time.
fn repeated<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            out.push(index);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named_once() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "one": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}},
            "two": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "l"], "items": {"type": "object"}},
            "maps": {"type": "object", "additionalProperties": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}},
        }}))
        .unwrap();
        for (object, wanted) in [
            (json!({"set": ["a", "b", "a", "a"]}), vec!["set[2]: Duplicate value: \"a\""]),
            (
                json!({"one": [{"k": "a"}, {"k": "a"}, {}, {}]}),
                vec!["one[1]: Duplicate value: {\"k\":\"a\"}", "one[3]: Duplicate value: {}"],
            ),
            (json!({"two": [{"k": 1, "l": 1}, {"k": 1}, {"k": 1, "l": 1}]}), vec!["two[2]: Duplicate value: {\"k\":1,\"l\":1}"]),
            (json!({"maps": {"a.b": [1, 1]}}), vec!["maps[a.b][1]: Duplicate value: 1"]),
            (json!({"one": [3]}), vec!["one[0]: Invalid value: 3: must be an object for an array of list-type map"]),
        ] {
            let mut errors = ErrorList::new();
            schema.check_lists(&object, &Place::root(), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
        }
    }
}
