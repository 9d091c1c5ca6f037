//! Structural schemas of definitions, and objects held against them: defaults and pruning are idempotent.
#![no_main]
use machinery::structural::{ObjectMeta, Schema, Source};
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let Ok(tree) = machinery::json::parse(&bytes[..cut]) else { return };
    let Ok(schema) = Schema::parse(&tree.value) else { return };
    let Some(object) = bytes.get(cut + 1..).and_then(|b| machinery::json::parse(b).ok()) else { return };
    let types = kinds::types();
    let Some(ty) = types.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else { panic!("the facts know ObjectMeta") };
    let meta = ObjectMeta { types, ty };
    drop(schema.to_types(meta));
    let mut value = object.value;
    if schema.decode(meta, Source::Request, &mut value).is_err() {
        return;
    }
    schema.default(&mut value);
    let once = value.clone();
    schema.default(&mut value);
    assert_eq!(once, value);
    drop(schema.validate(meta, &value, None));
    drop(schema.validate(meta, &value, Some(&once)));
});
