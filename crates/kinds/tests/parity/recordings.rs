//! Reads the recordings, when they are there.

use std::io::Read as _;
use std::path::PathBuf;

use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::Value;

pub fn directory() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/parity"));
    let other = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/parity"));
    let found = [path, other].into_iter().find(|p| p.is_dir());
    if found.is_none() {
        println!("skipped: no recordings of upstream's answers here");
    }
    found
}

/// The cases of one group; none without recordings.
pub fn cases(group: &str) -> Vec<Value> {
    let Some(directory) = directory() else { return Vec::new() };
    let Ok(bytes) = std::fs::read(directory.join(format!("golden/{group}.jsonl.gz"))) else { return Vec::new() };
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The fixtures by file name.
pub fn fixtures() -> Vec<(String, Vec<u8>)> {
    let Some(directory) = directory() else { return Vec::new() };
    let Ok(file) = std::fs::File::open(directory.join("fixtures.tar.gz")) else { return Vec::new() };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut out = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if !bytes.is_empty() {
            out.push((name, bytes));
        }
    }
    out
}

/// The built-in resource an object is of.
pub fn row_of(object: &Value) -> Option<&'static Resource> {
    let gv = GroupVersion::parse(object.get("apiVersion")?.as_str()?).ok()?;
    let gvk = GroupVersionKind::new(gv.group, gv.version, object.get("kind")?.as_str()?);
    kinds::table().by_kind(&gvk).map(|row| &**row)
}

/// Replaces the recordings' placeholders for times by a time, so that an object decodes.
pub fn fill_times(value: &mut Value) {
    match value {
        Value::String(s) if s == "<time>" => "2026-01-01T00:00:00Z".clone_into(s),
        Value::String(s) if s.starts_with("<time") => "2026-01-01T00:00:00.000000Z".clone_into(s),
        Value::Array(items) => items.iter_mut().for_each(fill_times),
        Value::Object(map) => map.values_mut().for_each(fill_times),
        _ => {}
    }
}

/// Counts, and prints the first few differences.
#[derive(Default)]
pub struct Score {
    pub same: usize,
    pub different: usize,
}

impl Score {
    pub fn add(&mut self, same: bool, why: impl FnOnce() -> String) {
        if same {
            self.same += 1;
            return;
        }
        self.different += 1;
        if self.different <= std::env::var("SHOW").map_or(12, |n| n.parse().unwrap_or(12)) {
            println!("{}\n", why());
        }
    }
}
