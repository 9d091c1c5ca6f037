//! Server-side apply where upstream's library decides what is not obvious: orders, duplicates, values without a schema, and texts.
#![expect(clippy::unwrap_used, reason = "tests")]

use machinery::apply::{ApplyError, Writer, apply, on_update};
use machinery::schema::{Field, Scalar, Struct, Type, TypeId, Types};
use machinery::structural::{ObjectMeta, Schema};
use serde_json::{Value, json};

fn types() -> (Types, TypeId) {
    let mut facts = Types::default();
    let text = facts.add(Type::Scalar(Scalar::String));
    let name = Field { name: "name".to_owned(), ty: text, ..Field::default() };
    let ty = facts.add(Type::Struct(Struct { name: "ObjectMeta".to_owned(), fields: vec![name], ..Struct::default() }));
    let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer"},
        "text": {"type": "string"},
        "flag": {"type": "boolean"},
        "either": {"x-kubernetes-int-or-string": true}, "dated": {"type": "string", "format": "date-time"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "integer"}, "a": {"type": "integer"}, "b": {"type": "integer"}}},
        },
    }}}}))
    .unwrap();
    schema.to_types(ObjectMeta { types: &facts, ty })
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "n"}, "spec": spec})
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "example.com/v1", subresource: "", time: "2026-01-01T00:00:00Z", reset_fields: &[] }
}

fn updated(old: Option<&Value>, manager: &str, spec: &Value) -> Value {
    let (types, ty) = types();
    let mut new = object(spec);
    if let Some(old) = old {
        new["metadata"] = old["metadata"].clone();
    }
    on_update(&types, ty, old, &mut new, &writer(manager));
    new
}

fn applied(live: Option<&Value>, manager: &str, spec: &Value, force: bool) -> Result<Value, ApplyError> {
    let (types, ty) = types();
    apply(&types, ty, live, &object(spec), &writer(manager), force).map(|done| done.object)
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"]["f:spec"].clone())
}

#[test]
fn another_order_of_items_is_no_change() {
    let live = updated(None, "u", &json!({"set": ["a", "b", "c"]}));
    let done = applied(Some(&live), "m", &json!({"set": ["c", "a"]}), false).unwrap();
    assert_eq!(done["spec"], live["spec"]);
    assert_eq!(owned(&done, "m"), json!({"f:set": {"v:\"a\"": {}, "v:\"c\"": {}}}));
    // With a change, shared items come in the applied order.
    let done = applied(Some(&live), "m", &json!({"set": ["c", "a", "d"]}), false).unwrap();
    assert_eq!(done["spec"], json!({"set": ["b", "c", "a", "d"]}));
}

#[test]
fn what_is_live_twice_is_replaced() {
    let live = updated(None, "u", &json!({"map": [{"k": 1, "a": 1}, {"k": 1, "a": 2, "b": 2}, {"k": 2, "b": 1}]}));
    assert_eq!(owned(&live, "u")["f:map"]["k:{\"k\":1}"], json!({}));
    let done = applied(Some(&live), "m", &json!({"map": [{"k": 1, "n": 0, "a": 3}]}), true);
    assert_eq!(done.unwrap_err().to_string(), ".spec.map[k=1].n: field not declared in schema");
    let done = applied(Some(&live), "m", &json!({"map": [{"k": 1, "a": 3}]}), true).unwrap();
    assert_eq!(done["spec"], json!({"map": [{"k": 1, "a": 3}, {"k": 2, "b": 1}]}));
}

#[test]
fn untyped_values_may_change_their_form() {
    let live = updated(None, "a", &json!({"free": {"x": {"y": 1}, "l": [1], "s": 1, "z": null}}));
    let next = updated(Some(&live), "b", &json!({"free": {"x": [1], "l": {"y": 1}, "s": {}, "z": {"y": 1}}}));
    assert_eq!(owned(&next, "a"), json!({".": {}, "f:free": {".": {}, "f:z": {}}}));
    let expected = json!({"f:free": {"f:x": {}, "f:l": {".": {}, "f:y": {}}, "f:s": {}, "f:z": {"f:y": {}}}});
    assert_eq!(owned(&next, "b"), expected);
    // What is below an untyped value stays owned through later writes.
    let last = updated(Some(&next), "c", &json!({"n": 1, "free": next["spec"]["free"]}));
    assert_eq!(owned(&last, "b"), expected);
}

#[test]
fn conflicts_come_in_the_order_of_numbers() {
    let live = applied(None, "a", &json!({"map": [{"k": 443, "a": 1}, {"k": 80, "a": 1}]}), false).unwrap();
    let refused = applied(Some(&live), "b", &json!({"map": [{"k": 443, "a": 2}, {"k": 80, "a": 2}]}), false).unwrap_err();
    assert_eq!(refused.to_string(), "conflicts with \"a\":\n- .spec.map[k=80].a\n- .spec.map[k=443].a");
}

#[test]
fn values_of_wrong_types_are_told_as_upstream_tells_them() {
    for (spec, expected) in [
        (json!({"n": {"q": 1}}), ".spec.n: expected numeric (int or float), got map[string]interface {}"),
        (json!({"n": true}), ".spec.n: expected numeric (int or float), got bool"),
        (json!({"flag": "x"}), ".spec.flag: expected boolean, got &{x}"),
        (json!({"dated": [1]}), ".spec.dated: expected any scalar, got &{[1]}"),
        (json!({"text": 1.5}), ".spec.text: expected string, got &value.valueUnstructured{Value:1.5}"),
        (
            json!({"text": {"q": ["a", null]}}),
            ".spec.text: expected string, got &value.valueUnstructured{Value:map[string]interface {}{\"q\":[]interface {}{\"a\", interface {}(nil)}}}",
        ),
        (json!({"map": 5}), ".spec.map: expected list, got &{5}"),
        (json!({"map": [null]}), ".spec.map: element 0: associative list with keys may not have a null element"),
        (json!({"map": ["x"]}), ".spec.map: element 0: associative list with keys may not have non-map elements"),
        (json!({"set": [{}]}), ".spec.set: element 0: associative list without keys has an element that's a map type"),
        (json!({"set": [[]]}), ".spec.set: element 0: not supported: associative list with lists as elements"),
        (json!({"set": [null]}), ".spec.set: element 0: associative list without keys has an element that's an explicit null"),
        (json!({"set": ["<", "<"]}), ".spec.set: duplicate entries for key [=\"<\"]"),
    ] {
        assert_eq!(applied(None, "m", &spec, false).unwrap_err().to_string(), expected);
    }
}
