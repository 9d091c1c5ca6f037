//! Merge patches, and strategic merge patches of pods.
#![no_main]
use machinery::gvk::GroupVersionResource;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (patch, object) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or(b"{}"));
    let Ok(object) = machinery::json::parse(object) else { return };
    drop(machinery::patch::merge(&object.value, patch));
    let row = kinds::table().by_resource(&GroupVersionResource::new("", "v1", "pods")).expect("pods are a kind");
    drop(machinery::patch::strategic(kinds::types(), row.ty, &object.value, patch));
});
