//! Protobuf bodies of every kind, chosen by the envelope: no panic, and the second encoding is the first's fixpoint.
#![no_main]
use machinery::gvk::GroupVersionKind;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let types = kinds::types();
    let type_of = |api_version: &str, kind: &str| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        kinds::table().type_of(&GroupVersionKind::new(group, version, kind))
    };
    if let Ok(value) = machinery::proto::from_envelope(types, bytes, type_of) {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let Some(ty) = type_of(value["apiVersion"].as_str().unwrap_or_default(), &kind) else { return };
        let sealed = machinery::proto::to_envelope(types, ty, &value);
        let again = machinery::proto::from_envelope(types, &sealed, type_of).expect("what was encoded is decoded");
        assert_eq!(machinery::proto::to_envelope(types, ty, &again), sealed);
    }
});
