//! Protobuf against the fixtures: JSON to bytes, bytes to JSON, and bytes through both.

use std::collections::BTreeMap;

use kinds::{table, types};
use machinery::gvk::GroupVersion;
use machinery::proto;
use machinery::schema::TypeId;
use serde_json::Value;

use crate::decode::difference;
use crate::recordings::{Score, fixtures};

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    table().type_of(&GroupVersion::parse(api_version).ok()?.kind(kind))
}

#[test]
fn fixtures_survive_byte_for_byte() {
    let files: BTreeMap<String, Vec<u8>> = fixtures().into_iter().collect();
    let (mut to_bytes, mut from_bytes, mut through) = (Score::default(), Score::default(), Score::default());
    for (name, bytes) in files.iter().filter(|(n, _)| n.ends_with(".pb")) {
        let json: Value = serde_json::from_slice(&files[&name.replace(".pb", ".json")]).unwrap();
        let (api_version, kind) = (json["apiVersion"].as_str().unwrap_or(""), json["kind"].as_str().unwrap_or(""));
        // A watch event has no envelope.
        if kind.is_empty() {
            continue;
        }
        let Some(ty) = type_of(api_version, kind) else {
            to_bytes.add(false, || format!("{name}: no type"));
            continue;
        };
        let ours = proto::to_envelope(types(), ty, &json);
        to_bytes.add(ours == *bytes, || {
            format!("{name}: written differently from byte {:?}", ours.iter().zip(bytes).position(|(a, b)| a != b))
        });
        let back = proto::from_envelope(types(), bytes, type_of);
        from_bytes.add(back.as_ref().ok() == Some(&json), || {
            format!("{name}: {}", back.as_ref().map_or_else(ToString::to_string, |b| difference(&json, b)))
        });
        let again = back.map(|b| proto::to_envelope(types(), ty, &b)).unwrap_or_default();
        through.add(again == *bytes, || format!("{name}: does not survive"));
    }
    println!(
        "protobuf: JSON to bytes {}, bytes to JSON {}, through both {} of {}",
        to_bytes.same,
        from_bytes.same,
        through.same,
        files.len() / 2
    );
    assert_eq!((to_bytes.different, from_bytes.different, through.different), (0, 0, 0));
}
