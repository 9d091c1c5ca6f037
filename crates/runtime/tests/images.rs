//! Loading archives into a store: sound, damaged and hostile ones. As root; skipped otherwise.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::{Path, PathBuf};

use runtime::Config;
use runtime::images::{ImageError, Images};
use sha2::{Digest, Sha256};

fn store() -> Option<(tempfile::TempDir, Images)> {
    if !trial::is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(&Config::new(dir.path(), dir.path().join("run"), "test")).unwrap();
    Some((dir, images))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(diff_ids: &[String]) -> Vec<u8> {
    serde_json::json!({ "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"], "Entrypoint": null, "User": "7" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } })
    .to_string()
    .into_bytes()
}

/// A `docker save` archive of these layers.
fn docker(layers: &[Vec<u8>], diff_ids: &[String]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": ["test/loaded:v1"], "Layers": names }]).to_string();
    let config = config(diff_ids);
    let mut files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)).collect();
    files.push(("config.json", &config));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

/// An OCI layout of one gzipped layer, with `damage` done to the stored blob.
fn oci(layer: &[u8], damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packed = gzip(layer);
    let (config, name) = (config(&[digest(layer)]), |d: &str| format!("blobs/sha256/{}", &d[7..]));
    let manifest =
        serde_json::json!({ "schemaVersion": 2, "config": { "digest": digest(&config) }, "layers": [{ "digest": digest(&packed) }] })
            .to_string();
    let index = serde_json::json!({ "manifests": [{ "digest": digest(manifest.as_bytes()), "annotations": { "io.containerd.image.name": "docker.io/test/oci:v2" } }] }).to_string();
    let layer_name = name(&digest(&packed));
    damage(&mut packed);
    let (config_name, manifest_name) = (name(&digest(&config)), name(&digest(manifest.as_bytes())));
    tar(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
        (&manifest_name, manifest.as_bytes()),
        (&config_name, &config),
        (&layer_name, &packed),
    ])
}

fn write(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("archive.tar");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn is_empty(images: &Images) -> bool {
    let count = |name: &str| std::fs::read_dir(images.dir().join(name)).unwrap().count();
    images.list().is_empty() && count("layers") == 0 && count("tmp") == 0
}

#[test]
fn loads_docker_archives_and_forgets_them() {
    let Some((dir, images)) = store() else { return };
    let layers = [tar(&[("a", b"low"), ("b", b"low")]), tar(&[("a", b"high"), (".wh.b", b"")])];
    let ids: Vec<String> = layers.iter().map(|l| digest(l)).collect();
    for archive in [docker(&layers, &ids), gzip(&docker(&layers, &ids)), docker(&[gzip(&layers[0]), layers[1].clone()], &ids)] {
        let image = images.load(&write(dir.path(), &archive)).unwrap().remove(0);
        assert_eq!(image.tags, ["docker.io/test/loaded:v1"]);
        assert_eq!((image.config.cmd, image.config.user), (vec!["sh".to_owned()], "7".to_owned()));
        assert_eq!(images.list().len(), 1);
        for name in ["test/loaded:v1", image.id.as_str(), &image.id[7..20]] {
            assert_eq!(images.find(name).unwrap().id, image.id, "{name}");
        }
    }
    let reopened = Images::open(&Config::new(dir.path(), dir.path().join("run"), "test")).unwrap();
    assert_eq!(reopened.list(), images.list());
    let other = reopened.load(&write(dir.path(), &oci(&tar(&[("c", b"x")]), |_| {}))).unwrap().remove(0);
    assert_eq!(images.list().len(), 2, "what another process loads is seen");
    reopened.remove(&other.id, &Default::default()).unwrap();
    assert_eq!(images.list().len(), 1);
    images.remove("test/loaded:v1", &Default::default()).unwrap();
    assert!(is_empty(&images));
}

#[test]
fn loads_oci_layouts() {
    let Some((dir, images)) = store() else { return };
    let image = images.load(&write(dir.path(), &oci(&tar(&[("a", b"x")]), |_| {}))).unwrap().remove(0);
    assert_eq!(image.tags, ["docker.io/test/oci:v2"]);
    assert!(image.digests[0].starts_with("docker.io/test/oci@sha256:"));
    assert_eq!(std::fs::read(images.layer_dirs(&image)[0].join("a")).unwrap(), b"x");
}

#[test]
fn damaged_and_hostile_archives_leave_nothing() {
    let Some((dir, images)) = store() else { return };
    let good = tar(&[("a", b"x")]);
    let wrong = vec![digest(b"something else")];
    let escape = tar(&[("../../../../../../tmp/skiff-escape", b"x")]);
    let second_bad = docker(&[good.clone(), escape.clone()], &[digest(&good), digest(&escape)]);
    let truncated = docker(std::slice::from_ref(&good), &[digest(&good)]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("wrong diff id", docker(std::slice::from_ref(&good), &wrong), "digest"),
        ("an escape", docker(std::slice::from_ref(&escape), &[digest(&escape)]), "leads out of the image"),
        ("a bad second layer", second_bad, "leads out of the image"),
        ("a missing layer", docker(std::slice::from_ref(&good), &[digest(&good), digest(&good)]), "2"),
        ("a damaged blob", oci(&good, |blob| *blob.last_mut().unwrap() ^= 1), "a layer"),
        ("a swapped blob", oci(&good, |blob| *blob = gzip(b"other")), "a layer"),
        ("a cut archive", truncated[..truncated.len() / 3].to_vec(), ""),
        ("noise", vec![0x42; 4096], ""),
        ("nothing", Vec::new(), "neither"),
        ("no manifest", tar(&[("x", b"y")]), "neither"),
        ("bad json", tar(&[("manifest.json", b"{")]), "manifest.json"),
    ];
    for (name, archive, text) in cases {
        let error = images.load(&write(dir.path(), &archive)).unwrap_err();
        assert!(error.to_string().contains(text), "{name}: {error}");
        assert!(matches!(error, ImageError::Unsound(_) | ImageError::TooLarge(_)), "{name}: {error:?}");
        assert!(is_empty(&images), "{name} left something");
    }
    assert!(!Path::new("/tmp/skiff-escape").exists());
    assert!(images.load(&dir.path().join("nosuch.tar")).unwrap_err().to_string().contains("nosuch.tar"));
}

#[test]
fn bombs_are_refused() {
    let Some((dir, _)) = store() else { return };
    let mut config = Config::new(dir.path().join("small"), dir.path().join("run"), "test");
    config.image_limits.layer_bytes_max = 1 << 20;
    let images = Images::open(&config).unwrap();
    let big = tar(&[("zeros", &vec![0; 4 << 20])]);
    let error = images.load(&write(dir.path(), &oci(&big, |_| {}))).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge(_)), "{error:?}");
    assert!(is_empty(&images));
}
