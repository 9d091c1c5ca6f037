//! Request bodies in YAML: no panic, bounded aliases, and what is emitted is read as the same.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = machinery::yaml::parse(bytes) {
        let text = machinery::yaml::to_string(&read.value);
        let again = machinery::yaml::parse(text.as_bytes()).expect("what was emitted is YAML");
        assert_eq!(again.value, read.value, "{text}");
    }
});
