//! Network namespaces: open, make, and do something inside one.
//!
//! A namespace belongs to a thread, so whatever happens inside one happens on a throwaway thread that is never used for
//! anything else. Sockets made there stay in the namespace wherever they are used later.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It exists at least as long as this.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
}

impl NetNs {
    /// The calling thread's.
    pub fn current() -> Result<Self> {
        Self::open(Path::new(OWN))
    }

    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::file("open network namespace", path, e))?;
        Ok(NetNs { file: Arc::new(file) })
    }

    /// A new one that lasts only as long as it is open or in use.
    pub fn anonymous() -> Result<Self> {
        on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::netlink("make a network namespace", e))?;
            Self::current()
        })?
    }

    /// A new one bound to a path, where [`NetNs::open`] finds it until [`NetNs::remove`].
    pub fn create(path: &Path) -> Result<Self> {
        let parent = path.parent().ok_or_else(|| Error::Invalid(format!("{} has no directory", path.display())))?;
        std::fs::create_dir_all(parent).map_err(|e| Error::file("create directory", parent, e))?;
        File::create_new(path).map_err(|e| Error::file("create", path, e))?;
        let made = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::netlink("make a network namespace", e))?;
            mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|e| Error::file("mount network namespace at", path, e.into()))?;
            Self::current()
        });
        match made.and_then(|inner| inner) {
            Ok(netns) => Ok(netns),
            Err(e) => {
                std::fs::remove_file(path).map_err(|e| Error::file("remove", path, e))?;
                Err(e)
            }
        }
    }

    /// Undo [`NetNs::create`]. The namespace goes when nothing uses it any more. One that is not there is no error.
    pub fn remove(path: &Path) -> Result<()> {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(e) => return Err(Error::file("unmount", path, e.into())),
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, e)),
            _ => Ok(()),
        }
    }

    /// Run something short and blocking inside. It must not start tasks or threads that should be elsewhere.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_new_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| Error::netlink("enter a network namespace", e))?;
            Ok(work())
        })?
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A path that leads here as long as `self` lives, for what takes a path.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.raw_fd()))
    }
}

fn on_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    let run = || std::thread::Builder::new().name("netns".into());
    std::thread::scope(|scope| {
        let thread = run().spawn_scoped(scope, work).map_err(|e| Error::netlink("start a thread", e))?;
        thread.join().map_err(|_| Error::Invalid("a thread in a network namespace panicked".into()))
    })
}
