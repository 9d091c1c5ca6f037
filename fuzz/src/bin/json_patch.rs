//! JSON patches: the patch and the object come from outside.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (patch, object) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or(b"{}"));
    let Ok(object) = machinery::json::parse(object) else { return };
    if let Ok(patch) = machinery::patch::JsonPatch::parse(patch) {
        drop(patch.apply(&object.value));
        drop(patch.touched());
    }
});
