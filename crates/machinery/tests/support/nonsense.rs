//! Trees in the shape of structural schemas where no keyword is what it should be. Used by the tests of `machinery` and of `kinds`,
//! which has more keys.

use proptest::prelude::*;
use serde_json::Value;

const KEYWORDS: [&str; 18] = [
    "type",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "enum",
    "pattern",
    "format",
    "default",
    "maxLength",
    "allOf",
    "anyOf",
    "not",
    "nullable",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
];

/// Made of these leaves and of words, under the keywords and more keys.
pub fn nonsense<L: Strategy<Value = Value> + 'static>(
    leaf: L,
    words: &[&'static str],
    more: &[&'static str],
) -> impl Strategy<Value = Value> + use<L> {
    let words = prop::sample::select([&["object", "array", "string", "integer", "map", "set", "("], words].concat()).prop_map(Value::from);
    let keys = [&KEYWORDS, more].concat();
    prop_oneof![leaf, words].prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(keys.clone()), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}
