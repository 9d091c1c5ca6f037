//! Pods as JSON: strict decoding, defaults, validation and the Pod Security Standards on anything that decodes.
#![no_main]
use machinery::gvk::GroupVersionResource;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = machinery::json::parse(bytes) else { return };
    let row = kinds::table().by_resource(&GroupVersionResource::new("", "v1", "pods")).expect("pods are a kind");
    let mut value = read.value;
    if !value.is_object() || machinery::decode::decode(kinds::types(), row.ty, &mut value).is_err() {
        return;
    }
    row.defaults.apply(&mut value);
    let context = kinds::Context { version: "v1".to_owned(), now: "2024-01-01T00:00:00Z".to_owned(), ..kinds::Context::default() };
    row.strategy.default(&context, &mut value);
    row.strategy.prepare_for_create(&context, &mut value);
    let errors = kinds::validate::create(row, &context, &value);
    drop(errors);
    drop(row.strategy.warnings(&context, &value, None));
    let (policy, _) = kinds::podsecurity::Policy::of(&value);
    drop(kinds::podsecurity::evaluate(policy.enforce, &value));
});
