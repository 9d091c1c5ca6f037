//! Label selectors and field selectors of the query.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(selector) = machinery::labels::parse(text) {
        std::hint::black_box(selector.matches_object(&serde_json::json!({"metadata": {"labels": {"a": "b"}}})));
    }
    if let Ok(selector) = machinery::fieldselector::parse(text) {
        std::hint::black_box(selector.matches(|_| "x"));
    }
});
