//! Server-side apply: the configuration and the live object with its managed fields are hostile; applying twice is applying once.
#![no_main]
use machinery::gvk::GroupVersionResource;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let Ok(config) = machinery::json::parse(&bytes[..cut]) else { return };
    let live = bytes.get(cut + 1..).and_then(|b| machinery::json::parse(b).ok()).map(|p| p.value);
    if !config.value.is_object() || live.as_ref().is_some_and(|l| !l.is_object()) {
        return;
    }
    let row = kinds::table().by_resource(&GroupVersionResource::new("apps", "v1", "deployments")).expect("deployments are a kind");
    let types = kinds::types();
    let mut live = live;
    if let Some(live) = &mut live
        && machinery::decode::decode(types, row.ty, live).is_err()
    {
        return;
    }
    let writer =
        machinery::apply::Writer { manager: "fuzz", api_version: "apps/v1", subresource: "", time: "2024-01-01T00:00:00Z", reset_fields: &[] };
    let Ok(first) = machinery::apply::apply(types, row.ty, live.as_ref(), &config.value, &writer, true) else { return };
    let mut once = first.object;
    if machinery::decode::decode(types, row.ty, &mut once).is_err() {
        return;
    }
    let second = match machinery::apply::apply(types, row.ty, Some(&once), &config.value, &writer, true) {
        // A live object may hold what no write lets in, as null elements of lists.
        Err(machinery::apply::ApplyError::Typed(_)) => return,
        other => other.expect("what was applied applies again"),
    };
    let mut twice = second.object;
    machinery::decode::decode(types, row.ty, &mut twice).expect("what was applied decodes");
    assert!(machinery::apply::same_but_for_times(&once, &twice), "{once}\n{twice}");
});
