//! Laws of structural schemas: pruning and defaults settle at once, what they made is accepted, and nothing a client may send as a
//! schema or as an object does harm.

use machinery::re2;
use machinery::schema::{Field, Omit, Scalar, Struct, Type, TypeId, Types};
use machinery::structural::{ObjectMeta, Place, Schema, Source};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[path = "support/nonsense.rs"]
mod nonsense;

fn object_meta() -> (Types, TypeId) {
    let mut types = Types::default();
    let text = types.add(Type::Scalar(Scalar::String));
    let field = |name: &str| Field { name: name.to_owned(), ty: text, omit: Omit::Empty, ..Field::default() };
    let made = Struct { name: "io.k8s.ObjectMeta".to_owned(), fields: vec![field("name"), field("namespace")], ..Struct::default() };
    let ty = types.add(Type::Struct(made));
    (types, ty)
}

/// Names that schemas and objects share.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "metadata", "kind", "k"]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4.0..4.0_f64).prop_map(Value::from),
        "[ab0-9:T.Z-]{0,6}".prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Structural schemas; defaults are anything.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "maxLength": 4, "pattern": "^[ab]*$"})),
        Just(json!({"type": "string", "format": "date-time"})),
        Just(json!({"type": "integer", "minimum": -3, "maximum": 3, "multipleOf": 2})),
        Just(json!({"type": "number", "exclusiveMinimum": true, "minimum": 0, "enum": [1, 2.5, "x", null]})),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true})),
    ];
    let nested = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            (prop::collection::btree_map(name(), inner.clone(), 0..4), prop::option::of(name()))
                .prop_map(|(p, r)| json!({"type": "object", "properties": p, "required": r.into_iter().collect::<Vec<_>>()})),
            inner.clone().prop_map(|v| json!({"type": "object", "additionalProperties": v, "maxProperties": 2})),
            inner.clone().prop_map(|v| json!({"type": "array", "items": v, "maxItems": 2})),
            inner
                .clone()
                .prop_map(|v| json!({"type": "array", "items": v, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]})),
            inner.prop_map(|v| json!({"type": "array", "items": v, "x-kubernetes-list-type": "set"})),
        ]
    });
    (nested, any::<bool>(), prop::option::of(tree())).prop_map(|(mut v, nullable, default)| {
        v["nullable"] = json!(nullable);
        if let Some(default) = default {
            v["default"] = default;
        }
        v
    })
}

/// Something in the shape of a schema where no keyword is what it should be.
fn nonsense() -> impl Strategy<Value = Value> {
    let more = ["minimum", "multipleOf", "oneOf", "x-kubernetes-preserve-unknown-fields", "maxItems", "uniqueItems"];
    nonsense::nonsense(scalar(), &["date-time", "a{1,900}"], &more)
}

fn resource(fields: Value) -> Value {
    let mut map = Map::from_iter([
        ("apiVersion".to_owned(), json!("g/v1")),
        ("kind".to_owned(), json!("T")),
        ("metadata".to_owned(), json!({"name": "n"})),
    ]);
    if let Value::Object(fields) = fields {
        map.extend(fields.into_iter().filter(|(k, _)| !matches!(k.as_str(), "metadata" | "kind" | "apiVersion")));
    }
    Value::Object(map)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pruning_and_defaults_settle_at_once(properties in prop::collection::btree_map(name(), schema(), 0..4), fields in tree()) {
        let schema = Schema::parse(&json!({"type": "object", "properties": properties})).unwrap();
        let (types, ty) = object_meta();
        let meta = ObjectMeta { types: &types, ty };
        let mut object = resource(fields);
        if schema.decode(meta, Source::Request, &mut object).is_err() {
            return Ok(());
        }
        let decoded = object.clone();
        prop_assert_eq!(schema.decode(meta, Source::Request, &mut object).unwrap(), Vec::<String>::new());
        prop_assert_eq!(&object, &decoded, "decoding settles");
        schema.default(&mut object);
        let defaulted = object.clone();
        schema.default(&mut object);
        prop_assert_eq!(&object, &defaulted, "defaults settle");
        // An unchanged object is never refused, however wrong it is.
        prop_assert_eq!(schema.check(&object, Some(&object), Place::root()), vec![]);
        schema.validate(meta, &object, None);
        let (made, root) = schema.to_types(meta);
        prop_assert!(made.get(root).as_struct().is_some());
    }

    #[test]
    fn nothing_does_harm(tree in nonsense(), object in tree(), old in tree()) {
        let schema = Schema::parse(&tree).unwrap();
        let (types, ty) = object_meta();
        let meta = ObjectMeta { types: &types, ty };
        schema.validate(meta, &object, Some(&old));
        let mut pruned = object.clone();
        schema.prune(&mut pruned, true);
        let mut again = pruned.clone();
        prop_assert_eq!(schema.prune(&mut again, true), Vec::<String>::new());
        prop_assert_eq!(again, pruned);
        let mut defaulted = object;
        schema.prune_nulls(&mut defaulted);
        schema.default(&mut defaulted);
        schema.to_types(meta);
    }
}

#[test]
fn the_deepest_objects_and_schemas_are_walked() {
    let (mut deep_schema, mut deep) = (json!({"type": "string", "default": "x"}), json!(1));
    for _ in 0..59 {
        deep_schema = json!({"type": "object", "properties": {"a": deep_schema}});
        deep = json!({"a": deep});
    }
    let schema = Schema::parse(&deep_schema).unwrap();
    let errors = schema.check(&deep, None, Place::root());
    assert_eq!(errors.len(), 1);
    schema.default(&mut deep);
    assert!(schema.prune(&mut deep, false).is_empty());
}

#[test]
fn many_errors_and_large_lists_take_no_longer_than_they_must() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "l": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "integer"}}}},
    }}))
    .unwrap();
    let numbers: Vec<u32> = (0..50_000).collect();
    let items: Vec<Value> = numbers.iter().map(|k| json!({"k": k})).collect();
    let object = json!({"l": numbers, "m": items});
    assert_eq!(schema.check(&object, None, Place::root()).len(), 50_000);
    let mut newer = object.clone();
    newer["m"].as_array_mut().unwrap().reverse();
    assert_eq!(schema.check(&newer, Some(&object), Place::root()).len(), 0);
    assert!(re2::check("^(a|b)*$").is_ok());
}
