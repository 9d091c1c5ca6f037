//! A directory as it was at one moment, for reading only: held open, bounded to the lengths of that moment. A server may go
//! on writing in it, and remove files, meanwhile. `backup` reads through it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Disk, DiskFile, SyncPoint};
use crate::backup::{Phase, Progress};
use crate::log::parse_name;

/// The files of a datastore, held.
pub(crate) struct FrozenDisk {
    dir: PathBuf,
    files: BTreeMap<String, (File, u64)>,
    read_bytes: AtomicU64,
    total_bytes: u64,
    progress: (Phase, Progress),
}

impl FrozenDisk {
    /// Holds a directory's snapshots and segments. A file may go between being listed and being opened: then `NotFound`.
    pub(crate) fn directory(dir: &Path, phase: Phase, progress: &Progress) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if is_ours(&name) {
                let file = hold(&dir.join(&name))?;
                files.insert(name, file);
            }
        }
        Ok(Self::of(dir.to_owned(), files, phase, progress))
    }

    /// Holds one file, whatever its name.
    pub(crate) fn file(path: &Path, phase: Phase, progress: &Progress) -> io::Result<(Self, String)> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let files = BTreeMap::from([(name.clone(), hold(path)?)]);
        Ok((Self::of(dir, files, phase, progress), name))
    }

    fn of(dir: PathBuf, files: BTreeMap<String, (File, u64)>, phase: Phase, progress: &Progress) -> Self {
        let total_bytes = files.values().map(|(_, bytes)| bytes).sum();
        FrozenDisk { dir, files, read_bytes: AtomicU64::new(0), total_bytes, progress: (phase, progress.clone()) }
    }

    /// Names and lengths.
    pub(crate) fn files(&self) -> BTreeMap<String, u64> {
        self.files.iter().map(|(name, (_, bytes))| (name.clone(), *bytes)).collect()
    }
}

/// Whether a file of that name holds data of a datastore.
pub(crate) fn is_ours(name: &str) -> bool {
    parse_name(name, "log-").or_else(|| parse_name(name, "snapshot-")).is_some()
}

fn hold(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "opened for reading only"))
}

impl Disk for FrozenDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let (file, len) = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(max)];
        file.read_exact_at(&mut bytes, offset)?;
        let read = bytes.len() as u64;
        let done = self.read_bytes.fetch_add(read, Ordering::Relaxed) + read;
        // A little is read twice.
        (self.progress.1)(self.progress.0, done.min(self.total_bytes), self.total_bytes);
        Ok(bytes)
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _point: SyncPoint) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn describe(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}
