//! Making an image from one static program: how `skiff/hello` comes out of the binary, without a network.

use std::io::Write;

use super::ImageError;
use super::config::{ConfigFile, ImageConfig, RootFs};
use super::reference::normalize;
use super::store::{Image, Images, LayerSource};
use super::stream::digest;

/// What to make an image of.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// The image's name, e.g. `skiff/hello`.
    pub image: &'a str,
    /// A static executable.
    pub bytes: &'a [u8],
    /// Where it lies in the image, e.g. `/bin/hello`.
    pub path: &'a str,
    /// Other names of it, hard links, e.g. `/bin/sh`.
    pub links: &'a [&'a str],
    pub config: ImageConfig,
}

/// Fixed, so that the same program always makes the same image.
const MTIME: u64 = 0;

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header
}

fn layer(program: &Program<'_>) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755), ("home", 0o755)] {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), dir, std::io::empty())?;
    }
    let files: [(&str, &[u8], u32); 3] = [
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644),
        ("etc/group", b"root:x:0:\nnobody:x:65534:\n", 0o644),
        (program.path.trim_start_matches('/'), program.bytes, 0o755),
    ];
    for (path, bytes, mode) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, mode, bytes.len() as u64), path, bytes)?;
    }
    for link in program.links {
        tar.append_link(&mut header(tar::EntryType::Link, 0o755, 0), link.trim_start_matches('/'), program.path.trim_start_matches('/'))?;
    }
    tar.into_inner()
}

/// Installs the image, pinned. Doing so again changes nothing and costs little.
pub fn build(images: &Images, program: &Program<'_>) -> Result<Image, ImageError> {
    let tag = normalize(program.image)?.whole();
    let layer = layer(program).map_err(ImageError::io("make the built-in image"))?;
    let rootfs = RootFs { kind: "layers".into(), diff_ids: vec![digest(&layer)] };
    let architecture = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    let config = ConfigFile { architecture: architecture.into(), os: "linux".into(), config: program.config.clone(), rootfs };
    let config = serde_json::to_vec(&config).map_err(|e| ImageError::io("make the built-in image")(e.into()))?;
    let id = digest(&config);
    if let Some(image) = images.list().into_iter().find(|i| i.id == id && i.tags.contains(&tag) && i.pinned) {
        return Ok(image);
    }
    let temporary = images.temporary()?;
    let file = temporary.0.join("layer");
    std::fs::File::create(&file).and_then(|mut f| f.write_all(&layer)).map_err(ImageError::io("make the built-in image"))?;
    images.install(&config, &[LayerSource { file, digest: None }], &[tag], &[], true)
}
