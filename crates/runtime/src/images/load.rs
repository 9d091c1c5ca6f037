//! Loading an archive: what `docker save` writes, or an OCI layout in a tar; packed or not. Blocking.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ImageError;
use super::reference::normalize;
use super::store::{CONFIG_BYTES_MAX, Image, Images, LayerSource, Temporary};
use super::stream::{Hashing, decompress, digest};

type Result<T> = std::result::Result<T, ImageError>;

const ENTRIES_MAX: usize = 10_000;
const INDEX_DEPTH_MAX: usize = 4;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

enum Member {
    /// In the temporary directory under this number.
    File(usize),
    Link(String),
}

/// The members of an archive, spilled to a temporary directory.
struct Archive {
    dir: Temporary,
    members: HashMap<String, Member>,
}

/// Go's name of this architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Archive {
    fn spill(images: &Images, path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(ImageError::io(format!("open {shown}")))?;
        let mut packed = Hashing::new(io::BufReader::new(file));
        let stream = decompress(&mut packed, images.limits()).map_err(ImageError::io(format!("read {shown}")))?;
        let mut archive = Self { dir: images.temporary()?, members: HashMap::new() };
        let damaged = |e: io::Error| match e.kind() {
            io::ErrorKind::FileTooLarge => ImageError::TooLarge(e.to_string()),
            _ => ImageError::Unsound(format!("{shown} is no sound tar archive: {e}")),
        };
        let mut tar = tar::Archive::new(stream);
        for entry in tar.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let number = archive.members.len();
            if number >= ENTRIES_MAX {
                return Err(ImageError::TooLarge(format!("{shown} has more than {ENTRIES_MAX} members")));
            }
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    let spilled = archive.dir.0.join(number.to_string());
                    let mut file = File::create_new(&spilled).map_err(ImageError::io("unpack the archive"))?;
                    io::copy(&mut entry, &mut file).map_err(damaged)?;
                    archive.members.insert(name, Member::File(number));
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
                    let base = if entry.header().entry_type().is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                    archive.members.insert(name.clone(), Member::Link(clean(&format!("{base}/{target}"))));
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    fn path(&self, name: &str) -> Result<std::path::PathBuf> {
        let mut at = clean(name);
        for _ in 0..8 {
            match self.members.get(&at) {
                Some(Member::File(number)) => return Ok(self.dir.0.join(number.to_string())),
                Some(Member::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(ImageError::unsound(format!("the archive lacks {name:?}")))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(name)?).map_err(ImageError::io("read the archive"))?;
        file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(ImageError::io("read the archive"))?;
        if bytes.len() as u64 > CONFIG_BYTES_MAX { Err(ImageError::TooLarge(format!("{name:?} in the archive"))) } else { Ok(bytes) }
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|e| ImageError::unsound(format!("{name:?} in the archive: {e}")))
    }

    /// A blob of an OCI layout, checked.
    fn blob(&self, digest_text: &str) -> Result<Vec<u8>> {
        let bytes = self.bytes(&blob_name(digest_text)?)?;
        let found = digest(&bytes);
        if found == digest_text { Ok(bytes) } else { Err(ImageError::unsound(format!("blob {digest_text} has digest {found}"))) }
    }
}

fn blob_name(digest: &str) -> Result<String> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(ImageError::unsound(format!("digest {digest:?} is not a sha256 digest"))),
    }
}

/// Installs every image in the archive at `path`.
pub fn load(images: &Images, path: &Path) -> Result<Vec<Image>> {
    let archive = Archive::spill(images, path)?;
    if archive.members.contains_key("manifest.json") {
        return load_docker(images, &archive);
    }
    if archive.members.contains_key("index.json") {
        let index: OciIndex = archive.json("index.json")?;
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let name =
                ["io.containerd.image.name", "org.opencontainers.image.ref.name"].iter().find_map(|key| descriptor.annotations.get(*key));
            let tag = name.filter(|n| n.contains('/') || n.contains(':')).map(|n| normalize(n)).transpose()?.map(|r| r.whole());
            loaded.push(load_oci(images, &archive, &descriptor.digest, tag, 0)?);
        }
        return if loaded.is_empty() { Err(ImageError::unsound("the archive holds no image")) } else { Ok(loaded) };
    }
    Err(ImageError::unsound(format!("{} is neither a docker archive nor an OCI layout", path.display())))
}

fn load_docker(images: &Images, archive: &Archive) -> Result<Vec<Image>> {
    let manifests: Vec<DockerManifest> = archive.json("manifest.json")?;
    let mut loaded = Vec::new();
    for manifest in manifests {
        let config = archive.bytes(&manifest.config)?;
        let tags = manifest.repo_tags.unwrap_or_default().iter().map(|t| normalize(t).map(|r| r.whole())).collect::<Result<Vec<_>>>()?;
        let sources =
            manifest.layers.iter().map(|name| Ok(LayerSource { file: archive.path(name)?, digest: None })).collect::<Result<Vec<_>>>()?;
        loaded.push(images.install(&config, &sources, &tags, &[], false)?);
    }
    Ok(loaded)
}

fn load_oci(images: &Images, archive: &Archive, digest: &str, tag: Option<String>, depth: usize) -> Result<Image> {
    let bytes = archive.blob(digest)?;
    let damaged = |e: serde_json::Error| ImageError::unsound(format!("manifest {digest}: {e}"));
    if let (Ok(index), true) = (serde_json::from_slice::<OciIndex>(&bytes), depth < INDEX_DEPTH_MAX) {
        let ours = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
        let chosen = index
            .manifests
            .iter()
            .find(ours)
            .ok_or_else(|| ImageError::unsound(format!("it has no variant for linux/{}", architecture())))?;
        return load_oci(images, archive, &chosen.digest, tag, depth + 1);
    }
    let manifest: OciManifest = serde_json::from_slice(&bytes).map_err(damaged)?;
    let config = archive.blob(&manifest.config.digest)?;
    let sources = manifest
        .layers
        .iter()
        .map(|layer| Ok(LayerSource { file: archive.path(&blob_name(&layer.digest)?)?, digest: Some(layer.digest.clone()) }))
        .collect::<Result<Vec<_>>>()?;
    let repository = tag.as_deref().and_then(|t| t.rsplit_once(':')).map(|(repository, _)| format!("{repository}@{digest}"));
    images.install(&config, &sources, tag.as_slice(), repository.as_slice(), false)
}
