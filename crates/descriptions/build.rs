//! Reads the descriptions out of the sources of `k8s-openapi`, which carries upstream's OpenAPI texts in the schemas it generates,
//! and packs them for `src/lib.rs`. The crate is part of the workspace, so Cargo knows where its sources lie.

#![expect(clippy::disallowed_methods, reason = "a build script reads sources; what is built does not")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

type Error = Box<dyn std::error::Error>;

/// The directory of the Kubernetes version whose types are built in.
const VERSION: &str = "v1_36";

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let sources = sources()?.join("src").join(VERSION);
    let mut types = BTreeMap::new();
    read_directory(&sources, &mut types)?;
    if types.len() < 500 {
        return Err(format!("only {} types found in {}", types.len(), sources.display()).into());
    }
    let packed = pack(&types)?;
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("descriptions.z"), packed)?;
    Ok(())
}

/// Where Cargo keeps the sources of `k8s-openapi`; fetched first if they are not there yet.
fn sources() -> Result<PathBuf, Error> {
    let metadata = |offline: &[&str]| -> Result<Value, Error> {
        let output = Command::new(std::env::var("CARGO")?)
            .args(["metadata", "--format-version=1"])
            .args(offline)
            .current_dir(std::env::var("CARGO_MANIFEST_DIR")?)
            .output()?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let found = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let packages = found["packages"].as_array().into_iter().flatten();
    let manifest = packages.filter(|p| p["name"] == "k8s-openapi").find_map(|p| p["manifest_path"].as_str());
    let manifest = Path::new(manifest.ok_or("the workspace does not use k8s-openapi")?);
    Ok(manifest.parent().ok_or("a manifest lies in a directory")?.to_owned())
}

/// By type the texts of its fields; that of the type itself is at `""`.
type Types = BTreeMap<String, BTreeMap<String, String>>;

fn read_directory(directory: &Path, types: &mut Types) -> Result<(), Error> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_directory(&path, types)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            read_source(&std::fs::read_to_string(&path)?, types)?;
        }
    }
    Ok(())
}

/// One generated file holds one type: `json_schema!` spells its OpenAPI schema, a property's fields indented below it.
fn read_source(source: &str, types: &mut Types) -> Result<(), Error> {
    const DEFINITION: &str = "// Generated from definition ";
    let Some(name) = source.lines().find_map(|l| l.strip_prefix(DEFINITION)) else { return Ok(()) };
    let Some(at) = source.find("fn json_schema(") else { return Ok(()) };
    let fields: &mut BTreeMap<String, String> = types.entry(name.trim().to_owned()).or_default();
    let mut property = None;
    for line in source[at..].lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let (16, Some(key)) = (indent, text.strip_prefix('"').and_then(|t| t.split_once("\": ")).map(|(key, _)| key)) {
            property = Some(key.to_owned());
        }
        let of_field = (indent == 20).then(|| literal(text)).flatten();
        let of_type = (indent == 12).then(|| literal(text)).flatten();
        match (&property, of_field, of_type) {
            (Some(property), Some(literal), _) => drop(fields.insert(property.clone(), unquote(literal)?)),
            (None, _, Some(literal)) => drop(fields.insert(String::new(), unquote(literal)?)),
            _ => {}
        }
    }
    Ok(())
}

/// The string after `"description":`, in a schema's map or put into one that refers to another type.
fn literal(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("\"description\": ") {
        return Some(rest.trim_end_matches(','));
    }
    let (_, rest) = line.split_once(".insert(\"description\".into(), ")?;
    rest.strip_suffix(".into());")
}

/// A Rust string literal of the generator, which escapes as JSON does.
fn unquote(literal: &str) -> Result<String, Error> {
    serde_json::from_str(literal).map_err(|e| format!("{e}: {literal}").into())
}

/// `{"texts": [..], "types": {type: {field: index}}}`: many fields of many types share their words.
fn pack(types: &Types) -> Result<Vec<u8>, Error> {
    let mut indexes: BTreeMap<&str, usize> = types.values().flat_map(|fields| fields.values()).map(|text| (text.as_str(), 0)).collect();
    for (index, place) in indexes.values_mut().enumerate() {
        *place = index;
    }
    let texts: Vec<&str> = indexes.keys().copied().collect();
    let types: BTreeMap<&String, BTreeMap<&String, usize>> = types
        .iter()
        .map(|(name, fields)| (name, fields.iter().filter_map(|(f, text)| Some((f, *indexes.get(text.as_str())?))).collect()))
        .collect();
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(json!({"texts": texts, "types": types}).to_string().as_bytes())?;
    Ok(out.finish()?)
}
