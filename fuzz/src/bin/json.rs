//! Request bodies in JSON: no panic, and what is read is written and read as the same.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = machinery::json::parse(bytes) {
        let text = serde_json::to_vec(&read.value).expect("a tree is JSON");
        let again = machinery::json::parse(&text).expect("what was written is JSON");
        assert_eq!(again.value, read.value);
        assert!(again.strict.is_empty());
    }
});
