//! CustomResourceDefinitions: what is wrong with them, in upstream's words. A table of schemas and one of everything else.

use kinds::apiextensions::rules::Rules;
use kinds::apiextensions::{validate, validate_update};
use machinery::structural::Schema;
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "../../machinery/tests/support/nonsense.rs"]
mod nonsense;

/// A sound definition with this schema.
fn with_schema(schema: &Value) -> Value {
    json!({
        "metadata": {"name": "things.a.b"},
        "spec": {
            "group": "a.b", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn texts(errors: Vec<machinery::field::Error>) -> Vec<String> {
    errors.iter().map(|e| e.to_string().replace("spec.validation.openAPIV3Schema", "@")).collect()
}

/// Errors of a property `a` with this schema.
fn property(schema: Value) -> Vec<String> {
    texts(validate(&with_schema(&json!({"type": "object", "properties": {"a": schema}}))))
}

#[test]
fn schemas_are_judged_keyword_by_keyword() {
    for (schema, wanted) in [
        (json!({"type": "string"}), vec![]),
        (
            json!({"type": "null"}),
            vec![
                "@.properties[a].type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                "@.properties[a].type: Forbidden: type cannot be set to null, use nullable as an alternative",
            ],
        ),
        (json!({"type": "string", "$ref": "#/x"}), vec!["@.properties[a].$ref: Forbidden: $ref is not supported"]),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            vec!["@.properties[a].items: Forbidden: items must be a schema object and not an array"],
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            vec!["@.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "metadata": {"type": "object", "properties": {"x": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}},
            }}),
            vec![
                "@.properties[a].properties[metadata].properties[x].x-kubernetes-embedded-resource: Forbidden: must not be used inside of resource meta",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "k"], "items": {
                "type": "object", "required": ["k"], "properties": {"k": {"type": "object", "nullable": true}},
            }}),
            vec![
                "@.properties[a].items.properties[k].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map",
                "@.properties[a].items.properties[k].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map",
                "@.properties[a].x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\"]: must not contain duplicate entries",
                "@.properties[a].items.properties[k].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
                "@.properties[a].items.properties[k].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "string"}}),
            vec!["@.properties[a].x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            vec!["@.properties[a].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified"],
        ),
    ] {
        assert_eq!(property(schema.clone()), wanted, "{schema}");
    }
}

#[test]
fn rules_are_compiled_and_their_costs_estimated() {
    let rules = |schema: Value, rule: Value| {
        let mut schema = schema;
        schema["x-kubernetes-validations"] = json!([rule]);
        property(schema)
    };
    let at = "@.properties[a].x-kubernetes-validations[0]";
    let go = |rule: &str| {
        format!(
            "{{\"Rule\":{},\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}",
            json!(rule)
        )
    };
    assert_eq!(rules(json!({"type": "integer"}), json!({"rule": "self > 0"})), Vec::<String>::new());
    assert_eq!(rules(json!({"type": "integer"}), json!({"rule": " "})), [format!("{at}.rule: Required value: rule is not specified")]);
    assert_eq!(
        rules(json!({"type": "integer"}), json!({"rule": "self"})),
        [format!("{at}.rule: Invalid value: {}: cel expression must evaluate to a bool", go("self"))]
    );
    assert_eq!(
        rules(json!({"type": "integer"}), json!({"rule": "self.b"})),
        [format!(
            "{at}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: type 'int' does not support field selection\n | self.b\n | ....^",
            go("self.b")
        )]
    );
    let message = rules(json!({"type": "integer"}), json!({"rule": "self > 0", "messageExpression": "self"}));
    assert!(
        message[0].starts_with(&format!("{at}.messageExpression: Invalid value: {{"))
            && message[0].ends_with(": messageExpression must evaluate to a string"),
        "{message:?}"
    );
    assert_eq!(
        rules(json!({"type": "integer"}), json!({"rule": "self > 0", "optionalOldSelf": true})),
        [format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule")]
    );
    assert_eq!(
        rules(json!({"type": "integer"}), json!({"rule": "self > 0", "message": "a\nb", "reason": "Odd"})),
        [
            format!("{at}.message: Invalid value: \"a\\nb\": message must not contain line breaks"),
            format!(
                "{at}.reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            ),
        ]
    );
    assert_eq!(
        rules(json!({"type": "object", "properties": {"b": {"type": "string"}}}), json!({"rule": "true", "fieldPath": ".c"})),
        [format!("{at}.fieldPath: Invalid value: \".c\": must be a valid path")]
    );
    let atomic =
        json!({"type": "array", "maxItems": 5, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    assert_eq!(
        property(atomic),
        [
            "@.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within @.properties[a]"
        ]
    );
    let unbounded = json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}}});
    let found = rules(unbounded, json!({"rule": "self.all(x, x.all(y, self.all(z, z.all(w, w == y))))"}));
    assert!(
        found[0].starts_with(&format!("{at}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|e| e
            .starts_with("@: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget")),
        "{found:?}"
    );
}

#[test]
fn defaults_must_hold_to_their_schema() {
    for (schema, wanted) in [
        (
            json!({"type": "string", "default": "long", "maxLength": 2}),
            vec!["@.properties[a].default: Too long: may not be more than 2 bytes"],
        ),
        (
            json!({"type": "object", "default": {"b": 1}, "properties": {"b": {"type": "integer"}, "c": {"type": "string"}}, "required": ["c"]}),
            vec!["@.properties[a].default.c: Required value"],
        ),
        (
            json!({"type": "integer", "default": 0, "x-kubernetes-validations": [{"rule": "self > 0", "message": "m"}]}),
            vec!["@.properties[a].default: Invalid value: 0: m"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "default": "a/b"}}},
            }}),
            vec![
                "@.properties[a].properties[metadata].properties[name].default: Invalid value: \"a/b\": must result in valid metadata: metadata.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
    ] {
        assert_eq!(property(schema.clone()), wanted, "{schema}");
    }
}

#[test]
fn a_status_subresource_narrows_the_root() {
    let mut definition = with_schema(&json!({"type": "object", "minProperties": 1}));
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    let found = texts(validate(&definition));
    assert!(found[0].starts_with("@: Invalid value: {\"ID\":\"\",\"Schema\":\"\",\"Ref\":null,"), "{found:?}");
    assert!(found[0].ends_with("only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled"), "{found:?}");
}

#[test]
fn updates_keep_names_and_stored_versions() {
    let mut old = with_schema(&json!({"type": "object"}));
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    for (pointer, value, wanted) in [
        ("/spec/scope", json!("Cluster"), "spec.scope: Invalid value: \"Cluster\": field is immutable"),
        ("/spec/names/kind", json!("Other"), "spec.names.kind: Invalid value: \"Other\": field is immutable"),
        ("/spec/group", json!("c.d"), "spec.group: Invalid value: \"c.d\": field is immutable"),
        ("/spec/names/plural", json!("others"), "spec.names.plural: Invalid value: \"others\": field is immutable"),
        (
            "/status/storedVersions",
            json!(["v0", "v1"]),
            "status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions",
        ),
    ] {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        assert_eq!(texts(validate_update(&new, &old)), [wanted], "{pointer}");
    }
}

#[test]
fn updates_need_not_mend_what_was_wrong() {
    let broken =
        json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}}});
    let old = with_schema(&broken);
    assert_eq!(texts(validate(&old)).len(), 1);
    let mut new = old.clone();
    new["spec"]["names"]["shortNames"] = json!(["t"]);
    assert_eq!(texts(validate_update(&new, &old)), Vec::<String>::new());
}

#[test]
fn deep_and_wide_definitions_do_no_harm() {
    let mut deep = json!({"type": "string"});
    for _ in 0..55 {
        deep = json!({"type": "object", "properties": {"a": deep}, "x-kubernetes-validations": [{"rule": "has(self.a)"}]});
    }
    validate(&with_schema(&deep));
    let wide: serde_json::Map<String, Value> =
        (0..5_000).map(|i| (format!("p{i}"), json!({"type": "string", "pattern": "^[a-z]{1,900}$", "default": "x"}))).collect();
    validate(&with_schema(&json!({"type": "object", "properties": wide})));
    for odd in [
        json!(null),
        json!([]),
        json!({"properties": 1, "items": [], "x-kubernetes-validations": "x", "default": {}}),
        json!({"not": {"not": {}}}),
    ] {
        validate(&with_schema(&odd));
    }
}

/// Trees in the shape of definitions in which anything may stand anywhere.
fn nonsense() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from)];
    let words = ["self", "self.a == oldSelf.a", "'x'", "true", ".a['b']", "\u{e9}<"];
    let more = [
        "x-kubernetes-validations",
        "rule",
        "messageExpression",
        "fieldPath",
        "metadata",
        "a",
        "names",
        "versions",
        "schema",
        "openAPIV3Schema",
        "selectableFields",
        "jsonPath",
        "conversion",
        "subresources",
    ];
    nonsense::nonsense(leaf, &words, &more)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_definition_does_harm(schema in nonsense(), spec in nonsense(), object in nonsense(), old in nonsense()) {
        let sound = with_schema(&schema);
        validate(&sound);
        validate_update(&sound, &json!({"spec": spec}));
        validate(&json!({"spec": spec, "status": object}));
        let schema = Schema::parse(&schema).unwrap();
        let mut errors = schema.validate(kinds::custom::object_meta(), &object, Some(&old));
        Rules::of(&schema).check(&schema, &object, Some(&old), &mut errors);
    }
}
