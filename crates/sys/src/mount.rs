//! `mount_setattr`, which neither `nix` nor `rustix` has. The other mount calls are `rustix::mount`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How mount events travel to and from a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
}

/// What to change on a mount. Absent flags stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub propagation: Option<Propagation>,
}

fn set_attr(dir: i32, path: &CString, flags: i32, attributes: Attributes) -> io::Result<()> {
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    let attr = libc::mount_attr {
        attr_set: flag(attributes.readonly, libc::MOUNT_ATTR_RDONLY)
            | flag(attributes.nosuid, libc::MOUNT_ATTR_NOSUID)
            | flag(attributes.nodev, libc::MOUNT_ATTR_NODEV)
            | flag(attributes.noexec, libc::MOUNT_ATTR_NOEXEC),
        attr_clr: 0,
        propagation: match attributes.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        userns_fd: 0,
    };
    // SAFETY: `path` and `attr` outlive the call, and the size passed is that of `attr`.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, &raw const attr, size_of::<libc::mount_attr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Changes the mount that `mount` (from `open_tree` or `fsmount`) refers to, with those below it when `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attributes: Attributes) -> io::Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    set_attr(mount.as_raw_fd(), &CString::default(), libc::AT_EMPTY_PATH | recursive, attributes)
}

/// Like [`set_attributes`], for the mount at `path`.
pub fn set_attributes_at(path: &Path, recursive: bool, attributes: Attributes) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    set_attr(libc::AT_FDCWD, &path, if recursive { libc::AT_RECURSIVE } else { 0 }, attributes)
}
