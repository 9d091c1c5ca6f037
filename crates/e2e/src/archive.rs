//! Image files made on the spot: a docker-archive and an OCI layout of one static program, and broken ones.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// What goes into the one layer of an image.
pub enum Entry<'a> {
    Program(&'a str, &'a [u8]),
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Device(&'a str),
}

/// A layer as a tar. Names are written as they are, however hostile.
pub fn layer(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let (name, mut header, bytes): (&str, tar::Header, &[u8]) = match entry {
            Entry::Program(name, bytes) => (name, header(tar::EntryType::Regular, 0o755, bytes.len()), bytes),
            Entry::File(name, bytes) => (name, header(tar::EntryType::Regular, 0o644, bytes.len()), bytes),
            Entry::Link(name, target) => {
                let mut made = header(tar::EntryType::Symlink, 0o777, 0);
                made.set_link_name_literal(target)?;
                (name, made, &[])
            }
            Entry::Device(name) => {
                let mut made = header(tar::EntryType::Block, 0o666, 0);
                made.set_device_major(8)?;
                made.set_device_minor(0)?;
                (name, made, &[])
            }
        };
        // `set_path` would refuse `..` and absolute names; an attacker would not.
        let field = &mut header.as_old_mut().name;
        field.fill(0);
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes)?;
    }
    Ok(tar.into_inner()?)
}

fn config(layer: &[u8], entrypoint: &[&str]) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "config": { "Entrypoint": entrypoint },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(layer))] },
    }))?)
}

fn write(path: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let mut tar = tar::Builder::new(std::fs::File::create(path)?);
    for (name, bytes) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, bytes.len()), name, bytes.as_slice())?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// As `docker save` writes it.
pub fn docker(path: &Path, name: &str, layer: Vec<u8>, entrypoint: &[&str]) -> Result<()> {
    let config = config(&layer, entrypoint)?;
    let config_name = format!("{}.json", digest(&config));
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"] }]);
    write(path, &[(config_name, config), ("layer.tar".to_owned(), layer), ("manifest.json".to_owned(), serde_json::to_vec(&manifest)?)])
}

/// An OCI layout in a tar, as `skopeo copy oci-archive:` writes it.
pub fn oci(path: &Path, name: &str, layer: Vec<u8>, entrypoint: &[&str]) -> Result<()> {
    let config = config(&layer, entrypoint)?;
    let descriptor =
        |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len() });
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;
    let blob = |bytes: Vec<u8>| (format!("blobs/sha256/{}", digest(&bytes)), bytes);
    write(
        path,
        &[
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index),
            blob(config),
            blob(layer),
            blob(manifest),
        ],
    )
}
