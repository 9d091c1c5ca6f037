//! Rules in CEL of custom resources, end to end without a server: a schema, an object, what it replaces, and the errors.

#![expect(clippy::unwrap_used, reason = "tests")]

use kinds::apiextensions::rules::Rules;
use machinery::structural::Schema;
use serde_json::{Value, json};

fn judged(schema: &Value, new: &Value, old: Option<&Value>) -> (Vec<String>, Vec<String>) {
    let schema = Schema::parse(schema).unwrap();
    let rules = Rules::of(&schema);
    let mut errors = schema.validate(kinds::custom::object_meta(), new, old);
    let warnings = rules.check(&schema, new, old, &mut errors);
    (errors.iter().map(ToString::to_string).collect(), warnings)
}

fn errors(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    judged(schema, new, old).0
}

/// The schema of an object with `spec` of these properties and rules.
fn with_rules(properties: Value, rules: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}})
}

fn spec(spec: Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "T", "metadata": {"name": "n"}, "spec": spec})
}

#[test]
fn rules_hold_or_say_what_is_wrong() {
    let ints = json!({"min": {"type": "integer"}, "max": {"type": "integer"}});
    for (rule, wanted) in [
        (json!({"rule": "self.min <= self.max"}), vec!["spec: Invalid value: failed rule: self.min <= self.max"]),
        (json!({"rule": "self.min <= self.max", "message": " m "}), vec!["spec: Invalid value: m"]),
        (json!({"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min)"}), vec!["spec: Invalid value: min 5"]),
        (json!({"rule": "self.min <= self.max", "messageExpression": "''", "message": "m"}), vec!["spec: Invalid value: m"]),
        (json!({"rule": "self.min <= self.max", "message": "m", "fieldPath": ".min"}), vec!["spec.min: Invalid value: m"]),
        (json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueForbidden"}), vec!["spec: Forbidden: m"]),
        (json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueRequired"}), vec!["spec: Required value: m"]),
        (json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueDuplicate"}), vec!["spec: Duplicate value"]),
        (
            json!({"rule": "self.min / (self.max - 1) == 0"}),
            vec!["spec: Invalid value: \"object\": division by zero evaluating rule: self.min / (self.max - 1) == 0"],
        ),
        (json!({"rule": "self.min > self.max"}), vec![]),
    ] {
        let found = errors(&with_rules(ints.clone(), json!([rule])), &spec(json!({"min": 5, "max": 1})), None);
        assert_eq!(found, wanted, "{rule}");
    }
}

#[test]
fn values_are_read_by_their_schema() {
    let properties = json!({
        "time": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"}, "wait": {"type": "string", "format": "duration"},
        "bytes": {"type": "string", "format": "byte"}, "a-b": {"type": "string"}, "ios": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}}, "none": {"type": "string", "nullable": true},
        "float": {"type": "number"}, "emb": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    });
    let object = spec(json!({
        "time": "2026-01-02T03:04:05Z", "day": "2026-01-02", "wait": "90s", "bytes": "aGk=", "a-b": "x", "ios": "5%", "set": ["a", "b"], "map": {"k": 1}, "none": null,
        "float": 1, "emb": {"apiVersion": "v1", "kind": "E", "metadata": {"name": "e"}},
    }));
    for rule in [
        "self.time < timestamp('2027-01-01T00:00:00Z')",
        "self.day == timestamp('2026-01-02T00:00:00Z')",
        "self.wait > duration('1m')",
        "self.bytes == b'hi'",
        "self.a__dash__b == 'x'",
        "type(self.ios) == string && self.ios.endsWith('%')",
        "self.set == ['b', 'a']",
        "self.map.all(k, self.map[k] == 1)",
        "!has(self.none)",
        "self.float == 1.0",
        "self.emb.metadata.name == 'e' && self.emb.kind == 'E'",
        "self.set.exists(x, x.matches('^a$'))",
    ] {
        let schema = with_rules(properties.clone(), json!([{"rule": rule}]));
        assert_eq!(errors(&schema, &object, None), Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn the_root_sees_names_and_nothing_else_of_metadata() {
    let schema = |rule: &str| json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]});
    assert_eq!(errors(&schema("self.metadata.name == 'n' && self.kind == 'T'"), &spec(json!({})), None), Vec::<String>::new());
    let found = errors(&schema("self.metadata.labels.a == 'n'"), &spec(json!({})), None);
    assert!(
        found[0].starts_with(
            "<nil>: Invalid value: \"object\": rule compile error: compilation failed: ERROR: <input>:1:14: undefined field 'labels'"
        ),
        "{found:?}"
    );
}

#[test]
fn transition_rules_compare_with_what_was() {
    let properties = json!({
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]},
        "once": {"type": "string", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "message": "set once", "optionalOldSelf": true},
        ]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "shrinks"}],
        }},
    });
    let schema = with_rules(properties, json!([]));
    let old = spec(json!({"fixed": "a", "once": "x", "list": [{"k": "1", "v": 5}, {"k": "2", "v": 5}]}));
    for (new, old, wanted) in [
        (json!({"fixed": "b"}), None, vec![]),
        (json!({"fixed": "b"}), Some(&old), vec!["spec.fixed: Invalid value: \"b\": immutable"]),
        (json!({"fixed": "a", "once": "y"}), Some(&old), vec!["spec.once: Invalid value: \"y\": set once"]),
        (json!({"once": "y"}), None, vec![]),
        (
            json!({"list": [{"k": "2", "v": 4}, {"k": "1", "v": 6}, {"k": "3", "v": 0}]}),
            Some(&old),
            vec!["spec.list[0]: Invalid value: shrinks"],
        ),
    ] {
        assert_eq!(errors(&schema, &spec(new.clone()), old), wanted, "{new}");
    }
}

#[test]
fn what_an_update_leaves_alone_may_stay_broken() {
    let schema = with_rules(
        json!({"a": {"type": "string", "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "long"}]}, "b": {"type": "string"}}),
        json!([]),
    );
    let old = spec(json!({"a": "long", "b": "x"}));
    let kept = judged(&schema, &spec(json!({"a": "long", "b": "y"})), Some(&old));
    assert_eq!(kept, (vec![], vec!["spec.a: Invalid value: \"long\": long".to_owned()]));
    assert_eq!(errors(&schema, &spec(json!({"a": "longer"})), Some(&old)), ["spec.a: Invalid value: \"longer\": long"]);
}

#[test]
fn rules_wait_for_types_to_be_right() {
    let schema = with_rules(json!({"a": {"type": "integer"}}), json!([{"rule": "self.a > 1"}]));
    assert_eq!(
        errors(&schema, &spec(json!({"a": "x"})), None),
        [
            "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn a_budget_bounds_all_rules_of_an_object() {
    let items: Vec<u32> = (0..4000).collect();
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let one = with_rules(json!({"l": list}), json!([{"rule": "self.l.all(x, self.l.all(y, x + y >= 0))", "message": "m"}]));
    let found = errors(&one, &spec(json!({"l": items})), None);
    assert_eq!(
        found,
        [
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: m"
        ]
    );
    let many: Vec<Value> = (0..2000).map(|_| json!({"rule": "self.l.all(x, x >= 0)"})).collect();
    let found = errors(&with_rules(json!({"l": list}), json!(many)), &spec(json!({"l": items})), None);
    assert_eq!(
        found,
        ["spec: Invalid value: \"object\": validation failed due to running out of cost budget, no further validation rules will be run"]
    );
}

#[test]
fn ratcheting_goes_by_what_can_be_told_to_be_the_same() {
    let small = json!([{"rule": "self.v < 3", "message": "big"}]);
    let item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
        "x-kubernetes-validations": small});
    let schema = with_rules(
        json!({
            "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item},
            "plain": {"type": "array", "items": item},
            "named": {"type": "object", "additionalProperties": item},
            "fixed": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"in": item}},
            "grows": {"type": "integer", "x-kubernetes-validations": [
                {"rule": "self >= oldSelf && self < 3", "message": "shrinks or big"},
                {"rule": "self / (self - 4) > 0", "message": "m"},
            ]},
            "loose": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": [{"rule": "self > 3", "message": "small"}]},
        }),
        json!([]),
    );
    let (big, small) = (json!({"k": "a", "v": 5}), json!({"k": "b", "v": 1}));
    let old =
        spec(json!({"keyed": [big, small], "plain": [big, small], "named": {"x": big}, "fixed": {"in": big}, "grows": 4, "loose": 1}));
    for (new, errors, warnings) in [
        // By its key, wherever it stands.
        (json!({"keyed": [small, big]}), vec![], vec!["spec.keyed[1]: Invalid value: big"]),
        (json!({"keyed": [{"k": "b", "v": 4}, big]}), vec!["spec.keyed[0]: Invalid value: big"], vec!["spec.keyed[1]: Invalid value: big"]),
        (json!({"keyed": [{"k": "new", "v": 4}]}), vec!["spec.keyed[0]: Invalid value: big"], vec![]),
        // The list as a whole.
        (json!({"plain": [big, small]}), vec![], vec!["spec.plain[0]: Invalid value: big"]),
        (json!({"plain": [big]}), vec!["spec.plain[0]: Invalid value: big"], vec![]),
        (json!({"named": {"x": big, "y": small}}), vec![], vec!["spec.named[x]: Invalid value: big"]),
        (json!({"named": {"y": big}}), vec!["spec.named[y]: Invalid value: big"], vec![]),
        (json!({"fixed": {"in": big}}), vec![], vec!["spec.fixed.in: Invalid value: big"]),
        // Rules of oldSelf, and rules that give no answer, hold for all.
        (
            json!({"grows": 4}),
            vec![
                "spec.grows: Invalid value: 4: shrinks or big",
                "spec.grows: Invalid value: \"integer\": division by zero evaluating rule: m",
            ],
            vec![],
        ),
        (json!({"loose": 1}), vec![], vec!["spec.loose: Invalid value: 1: small"]),
        (
            json!({"loose": "1"}),
            vec![
                "spec.loose: Invalid value: \"\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: small",
            ],
            vec![],
        ),
    ] {
        let (found, warned) = judged(&schema, &spec(new.clone()), Some(&old));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), errors, "{new}");
        assert_eq!(warned.iter().map(String::as_str).collect::<Vec<_>>(), warnings, "{new}");
    }
}
