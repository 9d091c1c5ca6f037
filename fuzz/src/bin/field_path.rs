//! What the author of a CustomResourceDefinition writes beside its schema, by lines: a field path of a rule, a pattern in Go's
//! syntax, and a text to try it on. The parser of paths comes by its own path: it is private to its crate.
#![no_main]
#[path = "../../../crates/kinds/src/apiextensions/field_path.rs"]
mod field_path;

use std::sync::LazyLock;

use machinery::structural::Schema;
use serde_json::json;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let tree = json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b-c": map, "d.e": map, "'": map}}, "m": map}});
    Schema::parse(&tree).expect("a schema")
});

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (path, pattern, tried) = (line(), line(), line());
    for brackets in [true, false] {
        match field_path::field_path(path, &SCHEMA, brackets) {
            Ok(found) => assert_eq!(found.root.is_empty(), path.is_empty()),
            Err(why) => assert!(!why.is_empty()),
        }
    }
    if let Ok(compiled) = machinery::re2::compile(pattern) {
        std::hint::black_box(compiled.is_match(tried));
    }
});
