//! The image store: an index of images, and unpacked layers named by their chain (what they are and what they lie on).
//!
//! A layer is unpacked beside and renamed into place; the index is replaced whole: a crash leaves nothing half-done but a
//! temporary directory, which the next start removes. Several processes may have one store open (the daemon and
//! `skiff image load`): changes are made under a file lock, and a changed index is read again. Blocking.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::config::{ConfigFile, ImageConfig};
use super::reference::{normalize, repository};
use super::stream::{Hashing, decompress, digest};
use super::unpack::unpack;
use super::{Credentials, ImageError, Program};
use crate::config::{Config, ImageLimits};

type Result<T> = std::result::Result<T, ImageError>;

/// A configuration larger than this is refused.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// A stored image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Complete names with tags.
    pub tags: Vec<String>,
    /// Complete names with digests.
    pub digests: Vec<String>,
    /// Chain ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// Unpacked size.
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// Not to be collected.
    #[serde(default)]
    pub pinned: bool,
}

/// Where the bytes of a layer come from.
pub struct LayerSource {
    pub file: PathBuf,
    /// Of the bytes as they are, when the source names one.
    pub digest: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: Vec<Image>,
    /// Unpacked size by chain id.
    layers: BTreeMap<String, u64>,
}

/// Which index file was read: inode and time of change.
type Stamp = Option<(u64, i64, i64)>;

fn read_index(path: &Path) -> Result<(Index, Stamp)> {
    use std::os::unix::fs::MetadataExt;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Index::default(), None)),
        Err(error) => return Err(ImageError::io("read the image index")(error)),
    };
    let metadata = file.metadata().map_err(ImageError::io("read the image index"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(ImageError::io("read the image index"))?;
    let index = serde_json::from_slice(&bytes).map_err(|e| ImageError::io(format!("read {}", path.display()))(e.into()))?;
    Ok((index, Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))))
}

fn lock(path: &Path, operation: rustix::fs::FlockOperation) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    rustix::fs::flock(&file, operation)?;
    Ok(file)
}

/// The mutex's guard, as the index alone.
struct IndexGuard<'a>(MutexGuard<'a, (Index, Stamp)>);

impl std::ops::Deref for IndexGuard<'_> {
    type Target = Index;
    fn deref(&self) -> &Index {
        &self.0.0
    }
}

impl std::ops::DerefMut for IndexGuard<'_> {
    fn deref_mut(&mut self) -> &mut Index {
        &mut self.0.0
    }
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limits: ImageLimits,
    insecure_registries: Vec<String>,
    index: Mutex<(Index, Stamp)>,
    /// Held shared as long as the store is open, so that the first to open it knows that leftovers are nobody's.
    _open: File,
    /// Unpacking is serial: two images with a common layer must not race.
    installing: Mutex<()>,
}

/// The image store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Images(Arc<Inner>);

impl Images {
    /// Opens the store of `config`, making it when absent.
    pub fn open(config: &Config) -> Result<Self> {
        let dir = config.images_dir();
        std::fs::create_dir_all(dir.join("layers")).map_err(ImageError::io(format!("make {}", dir.display())))?;
        let (temporary, open) = (dir.join("tmp"), dir.join("open.lock"));
        if lock(&open, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            match std::fs::remove_dir_all(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(ImageError::io("remove leftovers")(error)),
                _ => {}
            }
        }
        std::fs::create_dir_all(&temporary).map_err(ImageError::io("make a temporary directory"))?;
        let open = lock(&open, rustix::fs::FlockOperation::LockShared).map_err(ImageError::io("lock the image store"))?;
        let index = read_index(&dir.join("index.json"))?;
        let (limits, insecure_registries) = (config.image_limits.clone(), config.insecure_registries.clone());
        Ok(Self(Arc::new(Inner { dir, limits, insecure_registries, index: Mutex::new(index), _open: open, installing: Mutex::new(()) })))
    }

    /// The index, read again when another process changed it.
    fn index(&self) -> IndexGuard<'_> {
        use std::os::unix::fs::MetadataExt;
        let mut guard = self.0.index.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.0.dir.join("index.json");
        let stamp = std::fs::metadata(&path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()));
        if stamp != guard.1 {
            match read_index(&path) {
                Ok(fresh) => *guard = fresh,
                Err(error) => tracing::error!(%error, "the image index cannot be read again"),
            }
        }
        IndexGuard(guard)
    }

    /// Keeps other processes from changing the store.
    fn exclusive(&self) -> Result<File> {
        lock(&self.0.dir.join("change.lock"), rustix::fs::FlockOperation::LockExclusive).map_err(ImageError::io("lock the image store"))
    }

    pub(crate) fn limits(&self) -> &ImageLimits {
        &self.0.limits
    }

    pub(crate) fn insecure_registries(&self) -> &[String] {
        &self.0.insecure_registries
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// A fresh directory that is removed when dropped.
    pub(crate) fn temporary(&self) -> Result<Temporary> {
        let path = self.0.dir.join("tmp").join(crate::ids::random());
        std::fs::create_dir(&path).map_err(ImageError::io("make a temporary directory"))?;
        Ok(Temporary(path))
    }

    fn layer_dir(&self, chain: &str) -> PathBuf {
        self.0.dir.join("layers").join(chain.trim_start_matches("sha256:"))
    }

    /// The directories of an image's layers, lowest first.
    pub fn layer_dirs(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().map(|chain| self.layer_dir(chain)).collect()
    }

    pub fn list(&self) -> Vec<Image> {
        self.index().images.clone()
    }

    /// Finds by id, by unambiguous start of an id, or by name.
    pub fn find(&self, name: &str) -> Option<Image> {
        let index = self.index();
        if let Some(image) = index.images.iter().find(|i| i.id == name) {
            return Some(image.clone());
        }
        let start = name.trim_start_matches("sha256:");
        if start.len() >= 12 && start.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found = index.images.iter().filter(|i| i.id.trim_start_matches("sha256:").starts_with(start));
            if let (Some(image), None) = (found.next(), found.next()) {
                return Some(image.clone());
            }
        }
        let reference = normalize(name).ok()?;
        let by_digest = reference.digest().map(|d| format!("{}@{d}", repository(&reference)));
        let whole = reference.whole();
        index.images.iter().find(|i| i.tags.contains(&whole) || by_digest.as_ref().is_some_and(|d| i.digests.contains(d))).cloned()
    }

    /// Unpacks and records an image. The layers of `sources` are in order, lowest first.
    pub fn install(&self, config: &[u8], sources: &[LayerSource], tags: &[String], digests: &[String], pinned: bool) -> Result<Image> {
        let file: ConfigFile = serde_json::from_slice(config).map_err(|e| ImageError::unsound(format!("its configuration: {e}")))?;
        let diff_ids = &file.rootfs.diff_ids;
        if diff_ids.len() != sources.len() || sources.len() > self.0.limits.layers_max {
            return Err(ImageError::unsound(format!("it has {} layers, its configuration names {}", sources.len(), diff_ids.len())));
        }
        let _installing = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let _exclusive = self.exclusive()?;
        let (mut layers, mut lower, mut size_bytes): (Vec<String>, Vec<PathBuf>, u64) = (Vec::new(), Vec::new(), 0);
        let mut fresh = Vec::new();
        for (diff_id, source) in diff_ids.iter().zip(sources) {
            let chain = match layers.last() {
                None => digest(diff_id.as_bytes()),
                Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
            };
            let known = self.index().layers.get(&chain).copied().filter(|_| self.layer_dir(&chain).is_dir());
            let bytes = match known {
                Some(bytes) => Ok(bytes),
                None => self.install_layer(&chain, diff_id, source, &lower).inspect(|_| fresh.push(chain.clone())),
            };
            match bytes {
                Ok(bytes) => size_bytes += bytes,
                Err(error) => {
                    self.discard(&fresh)?;
                    return Err(error);
                }
            }
            lower.push(self.layer_dir(&chain));
            layers.push(chain);
        }
        let image =
            Image { id: digest(config), tags: tags.to_vec(), digests: digests.to_vec(), layers, size_bytes, config: file.config, pinned };
        self.record(image)
    }

    fn install_layer(&self, chain: &str, diff_id: &str, source: &LayerSource, lower: &[PathBuf]) -> Result<u64> {
        let temporary = self.temporary()?;
        let dir = temporary.0.join("fs");
        std::fs::create_dir(&dir).map_err(ImageError::io("make a layer's directory"))?;
        let file = File::open(&source.file).map_err(ImageError::io("open a layer"))?;
        let mut packed = Hashing::new(std::io::BufReader::with_capacity(128 * 1024, file));
        let bytes;
        {
            let unsound = |e: std::io::Error| ImageError::unsound(format!("a layer cannot be unpacked: {e}"));
            let mut plain = Hashing::new(decompress(&mut packed, &self.0.limits).map_err(unsound)?);
            bytes = unpack(&mut plain as &mut dyn Read, &dir, lower, &self.0.limits)?;
            let found = plain.finish().map_err(|e| match e.kind() {
                std::io::ErrorKind::FileTooLarge => ImageError::TooLarge(e.to_string()),
                _ => unsound(e),
            })?;
            if found != diff_id {
                return Err(ImageError::unsound(format!("a layer's contents have digest {found}, its configuration says {diff_id}")));
            }
        }
        if let Some(expected) = &source.digest {
            let found = packed.finish().map_err(ImageError::io("read a layer"))?;
            if &found != expected {
                return Err(ImageError::unsound(format!("a layer has digest {found}, its manifest says {expected}")));
            }
        }
        let target = self.layer_dir(chain);
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(ImageError::io("replace a layer"))?;
        }
        std::fs::rename(&dir, &target).map_err(ImageError::io("put a layer into place"))?;
        self.index().layers.insert(chain.to_owned(), bytes);
        Ok(bytes)
    }

    fn discard(&self, chains: &[String]) -> Result<()> {
        for chain in chains {
            self.index().layers.remove(chain);
            std::fs::remove_dir_all(self.layer_dir(chain)).map_err(ImageError::io("remove a layer"))?;
        }
        Ok(())
    }

    /// Adds names to the image, taking them from whichever had them.
    fn record(&self, mut image: Image) -> Result<Image> {
        let mut index = self.index();
        if let Some(old) = index.images.iter().position(|i| i.id == image.id) {
            let old = index.images.remove(old);
            image.tags = union(old.tags, image.tags);
            image.digests = union(old.digests, image.digests);
            image.pinned |= old.pinned;
        }
        for other in &mut index.images {
            other.tags.retain(|tag| !image.tags.contains(tag));
        }
        index.images.push(image.clone());
        self.save(&mut index)?;
        Ok(image)
    }

    fn save(&self, index: &mut IndexGuard<'_>) -> Result<()> {
        let (path, new) = (self.0.dir.join("index.json"), self.0.dir.join("index.json.new"));
        let bytes = serde_json::to_vec(&**index).map_err(|e| ImageError::io("write the image index")(e.into()))?;
        let write = || -> std::io::Result<Stamp> {
            use std::io::Write;
            use std::os::unix::fs::MetadataExt;
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            let metadata = file.metadata()?;
            std::fs::rename(&new, &path)?;
            Ok(Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec())))
        };
        index.0.1 = write().map_err(ImageError::io("write the image index"))?;
        Ok(())
    }

    /// Removes an image (by id: with all its names) or only one of its names while others remain. Layers that neither an
    /// image nor `in_use` (layer directories of containers) needs go too. Removing what is not there succeeds.
    pub fn remove(&self, name: &str, in_use: &HashSet<PathBuf>) -> Result<()> {
        let _exclusive = self.exclusive()?;
        let Some(image) = self.find(name) else { return Ok(()) };
        let mut index = self.index();
        let by_tag = normalize(name).ok().map(|r| r.whole()).filter(|tag| image.tags.contains(tag) && image.tags.len() > 1);
        match by_tag {
            Some(tag) => index.images.iter_mut().for_each(|i| i.tags.retain(|t| *t != tag)),
            None => index.images.retain(|i| i.id != image.id),
        }
        let needed: HashSet<String> = index.images.iter().flat_map(|i| i.layers.iter().cloned()).collect();
        let unneeded: Vec<String> =
            index.layers.keys().filter(|c| !needed.contains(*c) && !in_use.contains(&self.layer_dir(c))).cloned().collect();
        for chain in &unneeded {
            index.layers.remove(chain);
        }
        self.save(&mut index)?;
        drop(index);
        for chain in unneeded {
            let trash = self.0.dir.join("tmp").join(crate::ids::random());
            std::fs::rename(self.layer_dir(&chain), &trash)
                .and_then(|()| std::fs::remove_dir_all(&trash))
                .map_err(ImageError::io("remove a layer"))?;
        }
        Ok(())
    }

    /// Unpacked bytes and number of layers.
    pub fn used(&self) -> (u64, u64) {
        let index = self.index();
        (index.layers.values().sum(), index.layers.len() as u64)
    }

    /// Loads a docker-archive or OCI layout tar; see [`super::load()`].
    pub fn load(&self, path: &Path) -> Result<Vec<Image>> {
        super::load(self, path)
    }

    /// Makes an image from one program; see [`Program`].
    pub fn build(&self, program: &Program<'_>) -> Result<Image> {
        super::build::build(self, program)
    }

    /// Pulls from a registry.
    pub async fn pull(&self, name: &str, credentials: Credentials) -> Result<Image> {
        super::pull::pull(self, name, credentials).await
    }
}

fn union(mut a: Vec<String>, b: Vec<String>) -> Vec<String> {
    for item in b {
        if !a.contains(&item) {
            a.push(item);
        }
    }
    a
}

/// A directory that goes with its owner.
pub(crate) struct Temporary(pub PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove a temporary directory");
        }
    }
}
