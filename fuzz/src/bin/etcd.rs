//! Answers of etcd, and what the store makes of them; the first byte says to which request.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, answer)) = bytes.split_first() {
        etcd::fuzzing::answer(*kind, answer);
    }
});
