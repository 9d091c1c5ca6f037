//! A container's file system: overlay, mounts, devices. Runs in the forked child of a shim.
//!
//! Nothing is ever attached in the host's mount namespace: sources are cloned there as detached trees, then moved into
//! the container's own namespace, so there is nothing to leak and shared mounts keep their peers. Every path inside the
//! container is resolved with the container's root as root, so an image's links cannot lead out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use sys::mount::{Attributes, Propagation, set_attributes, set_attributes_at};

use super::protocol::{BindMount, ContainerSpec, DeviceSpec, MountPropagation};
use crate::cgroup::Hierarchies;

/// An error with what was being done.
pub type Result<T> = std::result::Result<T, String>;

/// Adds what was being done to an error.
pub fn doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Mounts that belong to no namespace yet.
pub struct Detached {
    root: OwnedFd,
    binds: Vec<(OwnedFd, BindMount, bool)>,
    shm: Option<OwnedFd>,
}

fn clone_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags).map_err(doing(format_args!("mount {}", path.display())))
}

fn overlay(spec: &ContainerSpec) -> Result<OwnedFd> {
    let context = || "mount the container's root";
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(doing(context()))?;
    for layer in spec.layers.iter().rev() {
        match rustix::mount::fsconfig_set_string(&fs, "lowerdir+", layer) {
            Ok(()) => {}
            // Kernels before 6.5 know only the joined form.
            Err(rustix::io::Errno::INVAL) if layer == spec.layers.last().unwrap_or(layer) => {
                let joined: Vec<_> = spec.layers.iter().rev().map(|l| l.to_string_lossy()).collect();
                rustix::mount::fsconfig_set_string(&fs, "lowerdir", joined.join(":")).map_err(doing(context()))?;
                break;
            }
            Err(error) => return Err(format!("{}: layer {}: {error}", context(), layer.display())),
        }
    }
    rustix::mount::fsconfig_set_string(&fs, "upperdir", spec.dir.join("upper")).map_err(doing(context()))?;
    rustix::mount::fsconfig_set_string(&fs, "workdir", spec.dir.join("work")).map_err(doing(context()))?;
    rustix::mount::fsconfig_create(&fs).map_err(doing(context()))?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(doing(context()))
}

/// Makes the root and clones the sources, in the host's mount namespace.
pub fn prepare(spec: &ContainerSpec) -> Result<Detached> {
    let mut binds = Vec::new();
    for bind in &spec.mounts {
        let is_dir = std::fs::metadata(&bind.source).map_err(doing(format_args!("mount {}", bind.source.display())))?.is_dir();
        let tree = clone_tree(&bind.source)?;
        let attributes = |readonly, propagation| Attributes { readonly, propagation, ..Default::default() };
        let propagation = match bind.propagation {
            MountPropagation::Private => Propagation::Private,
            MountPropagation::HostToContainer => Propagation::Slave,
            MountPropagation::Bidirectional => Propagation::Shared,
        };
        set_attributes(tree.as_fd(), true, attributes(bind.readonly && bind.recursive_readonly, Some(propagation)))
            .and_then(|()| set_attributes(tree.as_fd(), false, attributes(bind.readonly, None)))
            .map_err(doing(format_args!("set up mount {}", bind.source.display())))?;
        binds.push((tree, bind.clone(), is_dir));
    }
    binds.sort_by_key(|(_, bind, _)| Path::new(&bind.target).components().count());
    let shm = spec.shm.as_deref().map(clone_tree).transpose()?;
    Ok(Detached { root: overlay(spec)?, binds, shm })
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    rustix::mount::move_mount(tree, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// Opens `path` as seen from `root`.
fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::CLOEXEC | flags, Mode::empty(), resolve)
}

/// Opens the directory or file `path` inside `root`, making it and its parents when absent.
fn ensure(root: BorrowedFd<'_>, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    let parts: Vec<_> = path.components().filter_map(|c| if let Component::Normal(part) = c { Some(part) } else { None }).collect();
    let mut at = PathBuf::from("/");
    let mut parent = open_in(root, &at, OFlags::PATH)?;
    for (index, part) in parts.iter().enumerate() {
        let make_file = index + 1 == parts.len() && !directory;
        at.push(part);
        let mut opened = open_in(root, &at, OFlags::PATH);
        if opened.as_ref().is_err_and(|e| *e == rustix::io::Errno::NOENT) {
            if make_file {
                rustix::fs::mknodat(&parent, *part, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?;
            } else {
                rustix::fs::mkdirat(&parent, *part, Mode::from_raw_mode(0o755))?;
            }
            opened = open_in(root, &at, OFlags::PATH);
        }
        parent = opened?;
    }
    Ok(parent)
}

fn special(kind: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&fs, *key, *value)?,
            None => rustix::mount::fsconfig_set_flag(&fs, *key)?,
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn mount_special(
    root: BorrowedFd<'_>,
    target: &str,
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<()> {
    special(kind, options, attributes)
        .and_then(|tree| attach(&tree, &ensure(root, Path::new(target), true)?))
        .map_err(doing(format_args!("mount {kind} at {target}")))
}

/// Enters a new mount namespace whose root is the container's. The caller has prepared `detached` before.
pub fn enter(spec: &ContainerSpec, detached: Detached) -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWCGROUP)
        .map_err(doing("new mount namespace"))?;
    set_attributes_at(Path::new("/"), true, Attributes { propagation: Some(Propagation::Private), ..Default::default() })
        .map_err(doing("make mounts private"))?;
    let at = spec.dir.join("rootfs");
    rustix::mount::move_mount(&detached.root, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(doing("attach the root"))?;
    let root =
        rustix::fs::openat(CWD, &at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(doing("open the root"))?;
    kernel_file_systems(spec, root.as_fd(), detached.shm.as_ref())?;
    for (tree, bind, is_dir) in &detached.binds {
        ensure(root.as_fd(), Path::new(&bind.target), *is_dir).and_then(|target| attach(tree, &target)).map_err(doing(format_args!(
            "mount {} at {}",
            bind.source.display(),
            bind.target
        )))?;
    }
    rustix::process::fchdir(&root).map_err(doing("enter the root"))?;
    rustix::process::pivot_root(".", ".").map_err(doing("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(doing("leave the host's root"))?;
    rustix::process::chdir("/").map_err(doing("enter the root"))?;
    hide(spec)
}

fn kernel_file_systems(spec: &ContainerSpec, root: BorrowedFd<'_>, shm: Option<&OwnedFd>) -> Result<()> {
    let given = |target: &str| spec.mounts.iter().any(|m| m.target.trim_end_matches('/') == target);
    let (nosuid, noexec, nodev) = (MountAttrFlags::MOUNT_ATTR_NOSUID, MountAttrFlags::MOUNT_ATTR_NOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV);
    let sealed = nosuid | noexec | nodev;
    let readonly = if spec.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    if !given("/proc") {
        mount_special(root, "/proc", "proc", &[], sealed)?;
    }
    if !given("/dev") {
        mount_special(root, "/dev", "tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], nosuid)?;
        mount_special(
            root,
            "/dev/pts",
            "devpts",
            &[("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))],
            nosuid | noexec,
        )?;
        mount_special(root, "/dev/mqueue", "mqueue", &[], sealed)?;
        devices(spec, root)?;
    }
    if !given("/dev/shm") {
        match shm {
            Some(tree) => {
                ensure(root, Path::new("/dev/shm"), true).and_then(|target| attach(tree, &target)).map_err(doing("mount /dev/shm"))?
            }
            None => mount_special(root, "/dev/shm", "tmpfs", &[("mode", Some("1777")), ("size", Some("65536k"))], sealed)?,
        }
    }
    if !given("/sys") {
        mount_special(root, "/sys", "sysfs", &[], sealed | readonly)?;
        if !given("/sys/fs/cgroup") {
            cgroups(root, sealed, readonly)?;
        }
    }
    Ok(())
}

fn cgroups(root: BorrowedFd<'_>, sealed: MountAttrFlags, readonly: MountAttrFlags) -> Result<()> {
    let hierarchies = Hierarchies::get();
    if hierarchies.is_v2() {
        return mount_special(root, "/sys/fs/cgroup", "cgroup2", &[], sealed | readonly);
    }
    mount_special(root, "/sys/fs/cgroup", "tmpfs", &[("mode", Some("755"))], sealed)?;
    for (name, controllers) in hierarchies.v1_mounts() {
        let options: Vec<_> = controllers.iter().map(|c| (*c, None)).collect();
        mount_special(root, &format!("/sys/fs/cgroup/{name}"), "cgroup", &options, sealed | readonly)?;
    }
    set_attributes_at_fd(root, "/sys/fs/cgroup", !readonly.is_empty())
}

fn set_attributes_at_fd(root: BorrowedFd<'_>, path: &str, readonly: bool) -> Result<()> {
    let target = open_in(root, Path::new(path), OFlags::PATH).map_err(doing(path))?;
    set_attributes(target.as_fd(), false, Attributes { readonly, ..Default::default() }).map_err(doing(path))
}

/// Name, major, minor of the character devices that every container has.
const USUAL_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn devices(spec: &ContainerSpec, root: BorrowedFd<'_>) -> Result<()> {
    let dev = open_in(root, Path::new("/dev"), OFlags::PATH).map_err(doing("open /dev"))?;
    for (name, major, minor) in USUAL_DEVICES {
        node(&dev, name, FileType::CharacterDevice, rustix::fs::makedev(major, minor), 0o666)
            .map_err(doing(format_args!("make /dev/{name}")))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(doing(format_args!("make /dev/{name}")))?;
    }
    let host = if spec.privileged { host_devices() } else { Vec::new() };
    for device in spec.devices.iter().chain(&host) {
        let what = || format!("make device {}", device.container_path);
        let stat = rustix::fs::stat(&device.host_path).map_err(doing(what()))?;
        let path = Path::new(&device.container_path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(format!("{}: not a path", what())) };
        let parent = ensure(root, parent, true).map_err(doing(what()))?;
        match node(&parent, name, FileType::from_raw_mode(stat.st_mode), stat.st_rdev, stat.st_mode & 0o777) {
            Ok(()) => rustix::fs::chownat(
                &parent,
                name,
                Some(rustix::fs::Uid::from_raw(stat.st_uid)),
                Some(rustix::fs::Gid::from_raw(stat.st_gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(doing(what()))?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(format!("{}: {error}", what())),
        }
    }
    Ok(())
}

fn node(dir: &OwnedFd, name: impl rustix::path::Arg + Copy, kind: FileType, device: u64, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()) // past the umask
}

/// Every device node below the host's `/dev`, for privileged containers.
fn host_devices() -> Vec<DeviceSpec> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/dev")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().filter_map(io::Result::ok) {
            let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
            if kind.is_dir() && !["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"].iter().any(|skip| path == Path::new(skip)) {
                dirs.push(path);
            } else if (kind.is_char_device() || kind.is_block_device())
                && path != Path::new("/dev/console")
                && path != Path::new("/dev/ptmx")
            {
                let container_path = path.to_string_lossy().into_owned();
                found.push(DeviceSpec { host_path: path, container_path, permissions: "rwm".into() });
            }
        }
    }
    found
}

/// Masks paths, makes others read-only, and finally the root, inside the entered root.
fn hide(spec: &ContainerSpec) -> Result<()> {
    for path in &spec.readonly_paths {
        let target = match open_in(CWD, Path::new(path), OFlags::PATH) {
            Ok(target) => target,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
            Err(error) => return Err(format!("make {path} read-only: {error}")),
        };
        let tree = clone_tree(Path::new(path))?;
        set_attributes(tree.as_fd(), true, Attributes { readonly: true, ..Default::default() })
            .map_err(doing(format_args!("make {path} read-only")))?;
        attach(&tree, &target).map_err(doing(format_args!("make {path} read-only")))?;
    }
    for path in &spec.masked_paths {
        let target = match open_in(CWD, Path::new(path), OFlags::PATH) {
            Ok(target) => target,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
            Err(error) => return Err(format!("mask {path}: {error}")),
        };
        let is_dir =
            rustix::fs::fstat(&target).map(|s| FileType::from_raw_mode(s.st_mode).is_dir()).map_err(doing(format_args!("mask {path}")))?;
        let cover = if is_dir {
            special("tmpfs", &[("size", Some("0")), ("nr_inodes", Some("2"))], MountAttrFlags::MOUNT_ATTR_RDONLY)
                .map_err(doing(format_args!("mask {path}")))?
        } else {
            clone_tree(Path::new("/dev/null"))?
        };
        attach(&cover, &target).map_err(doing(format_args!("mask {path}")))?;
    }
    if spec.readonly_rootfs {
        set_attributes_at(Path::new("/"), false, Attributes { readonly: true, ..Default::default() })
            .map_err(doing("make the root read-only"))?;
    }
    Ok(())
}
