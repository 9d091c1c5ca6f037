//! The file system: a data directory, locked against other processes for as long as it is open.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Disk, DiskFile, SyncPoint};
use crate::Error;

pub(crate) const LOCK: &str = "lock";

/// A locked directory. The lock goes with the process, however it ends.
pub struct RealDisk {
    path: PathBuf,
    dir: File,
    _lock: File,
}

impl RealDisk {
    /// Makes the directory (mode 0700) where it is not there, and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |what: &str, error: io::Error| Error::Open(format!("{what} {}: {}", path.display(), advice(&error)));
        make_dirs(path).map_err(|e| failed("making the data directory", e))?;
        let dir = File::open(path).map_err(|e| failed("opening the data directory", e))?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|e| failed("opening the lock file in the data directory", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Open(locked(path, lock))),
            Err(TryLockError::Error(e)) => return Err(failed("locking the data directory", e)),
        }
        note_owner(&lock).map_err(|e| failed("writing the lock file in the data directory", e))?;
        Ok(RealDisk { path: path.to_owned(), dir, _lock: lock })
    }
}

/// Makes missing directories and syncs the parent of each one made.
fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dirs(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    File::open(parent)?.sync_all()
}

fn locked(path: &Path, mut lock: File) -> String {
    let mut owner = String::new();
    // Only the message gets poorer when this cannot be read.
    let owner = match lock.read_to_string(&mut owner) {
        Ok(_) if !owner.trim().is_empty() => format!(" (process {})", owner.trim()),
        _ => String::new(),
    };
    format!("{} is in use by another process{owner}; stop it first, or choose another data directory", path.display())
}

fn note_owner(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

pub(crate) fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}; run as the user who owns it, or choose another data directory"),
        io::ErrorKind::ReadOnlyFilesystem => format!("{error}; mount it writable, or choose another data directory"),
        io::ErrorKind::StorageFull => format!("{error}; free some space first"),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{error}; something that is not a directory is in the way")
        }
        _ => error.to_string(),
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let left = file.metadata()?.len().saturating_sub(offset);
        let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(max).min(max));
        file.take(max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        create(&self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self, _point: SyncPoint) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Makes an empty file, also over an existing one.
pub(crate) fn create(path: &Path) -> io::Result<Box<dyn DiskFile>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(Box::new(RealFile(file)))
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self, _point: SyncPoint) -> io::Result<()> {
        self.0.sync_data()
    }
}
