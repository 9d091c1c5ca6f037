//! SPDY connections of older clients: raw, or (first byte odd) with header blocks that are packed on the way.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, said)) = bytes.split_first() {
        runtime::fuzzing::spdy(said, first & 1 == 1);
    }
});
