//! Unpacking one layer into a directory for overlayfs. The tar is hostile until proven otherwise: every write goes
//! through a descriptor of a directory that was reached without following links.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use tar::{Archive, Entry, EntryType};

use super::ImageError;
use super::resolve::{Found, OPAQUE, look, parts, real_directory};
use crate::config::ImageLimits;

/// Long names and extended headers beyond this are refused.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

type Result<T> = std::result::Result<T, ImageError>;

/// What precedes an entry: GNU long names and pax records.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<String, Vec<u8>>,
}

struct Layer<'a> {
    top: &'a Path,
    root: OwnedFd,
    lower: &'a [PathBuf],
    bytes: u64,
}

fn errno(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> ImageError {
    move |error| ImageError::Io { doing: doing.into(), source: error.into() }
}

/// Unpacks the tar `stream` into the empty directory `top`, on top of `lower` (lowest first). Returns the bytes of its files.
pub fn unpack(stream: &mut dyn Read, top: &Path, lower: &[PathBuf], limits: &ImageLimits) -> Result<u64> {
    let root = rustix::fs::open(top, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(errno("open the layer's directory"))?;
    let mut layer = Layer { top, root, lower, bytes: 0 };
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(ImageError::io("read the layer"))?.raw(true);
    let (mut extensions, mut count) = (Extensions::default(), 0);
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        count += 1;
        if count > limits.layer_entries_max {
            return Err(ImageError::TooLarge(format!("a layer has more than {} entries", limits.layer_entries_max)));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => extensions.name = Some(extension(&mut entry)?),
            EntryType::GNULongLink => extensions.link = Some(extension(&mut entry)?),
            EntryType::XHeader => extensions.pax = pax(&extension(&mut entry)?)?,
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            _ => layer.entry(&mut entry, std::mem::take(&mut extensions))?,
        }
    }
    Ok(layer.bytes)
}

fn damaged(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => ImageError::TooLarge(error.to_string()),
        _ => ImageError::Unsound(format!("a layer is damaged: {error}")),
    }
}

fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(ImageError::TooLarge("an extended header".into()));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    if !matches!(entry.header().entry_type(), EntryType::XHeader | EntryType::XGlobalHeader) {
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// `LENGTH KEY=VALUE\n` records, where the length counts the whole record.
fn pax(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let bad = || ImageError::unsound("a damaged pax header");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        let record = bytes.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        records.insert(String::from_utf8_lossy(&record[..equals]).into_owned(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

impl Extensions {
    fn number(&self, key: &str) -> Option<u64> {
        std::str::from_utf8(self.pax.get(key)?).ok()?.parse().ok()
    }
}

/// Owner, mode and the like of an entry.
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

fn attributes<R: Read>(entry: &Entry<'_, R>, extensions: &Extensions) -> Result<Attributes> {
    let header = entry.header();
    let id = |value: u64| u32::try_from(value).map_err(|_| ImageError::unsound("an owner is out of range"));
    let uid = id(extensions.number("uid").map_or_else(|| header.uid(), Ok).map_err(damaged)?)?;
    let gid = id(extensions.number("gid").map_or_else(|| header.gid(), Ok).map_err(damaged)?)?;
    let mode = Mode::from_raw_mode(header.mode().map_err(damaged)? & 0o7777);
    // Overlay's own attributes would let an image redirect lookups; only these two kinds mean something in a container.
    let xattrs = extensions
        .pax
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value.clone())))
        .filter(|(key, _)| key == "security.capability" || key.starts_with("user."))
        .collect();
    let mtime = i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0);
    Ok(Attributes { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mode, mtime, xattrs })
}

impl Layer<'_> {
    fn open_directory(&self, parts: &[OsString]) -> Result<OwnedFd> {
        let path: PathBuf = std::iter::once(OsStr::new(".")).chain(parts.iter().map(OsString::as_os_str)).collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, &path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
            .map_err(errno(format!("open {:?} of the layer", path.display())))
    }

    /// The directory an entry goes into, made when absent (like the one it covers, if it does).
    fn parent(&self, directory: &[OsString]) -> Result<OwnedFd> {
        let real = real_directory(self.top, self.lower, directory, |path, covered| {
            let Some((name, above)) = path.split_last() else { return Ok(()) };
            let above = self.open_directory(above)?;
            rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)).map_err(errno("make a directory"))?;
            if let Some(metadata) = covered {
                use std::os::unix::fs::MetadataExt;
                let made = self.open_directory(path)?;
                rustix::fs::fchown(&made, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))
                    .map_err(errno("chown"))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(metadata.mode() & 0o7777)).map_err(errno("chmod"))?;
            }
            Ok(())
        })?;
        self.open_directory(&real)
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, extensions: Extensions) -> Result<()> {
        let path = extensions.pax.get("path").or(extensions.name.as_ref()).cloned().unwrap_or_else(|| entry.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&path).into_owned();
        let parts = parts(&path)?;
        let attributes = attributes(entry, &extensions)?;
        let kind = entry.header().entry_type();
        let Some((name, directory)) = parts.split_last() else {
            let is_root = kind.is_dir();
            return if is_root {
                set(&self.root, &attributes, &shown)
            } else {
                Err(ImageError::unsound(format!("entry {shown:?} has no name")))
            };
        };
        let parent = self.parent(directory)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&parent, hidden, &shown);
        }
        let what = || format!("unpack {shown:?}");
        match kind {
            EntryType::Directory => {
                make_directory(&parent, name, &what())?;
                let made = rustix::fs::openat(
                    &parent,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(errno(what()))?;
                set(&made, &attributes, &shown)
            }
            EntryType::Regular | EntryType::Continuous => {
                remove(&parent, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600)).map_err(errno(what()))?);
                self.bytes += io::copy(entry, &mut file)
                    .map_err(|e| if e.raw_os_error().is_some() { ImageError::io(what())(e) } else { damaged(e) })?;
                set(&OwnedFd::from(file), &attributes, &shown)
            }
            EntryType::Symlink | EntryType::Link => {
                let target = extensions.pax.get("linkpath").or(extensions.link.as_ref()).cloned();
                let target = target
                    .or_else(|| entry.link_name_bytes().map(|l| l.into_owned()))
                    .ok_or_else(|| ImageError::unsound(format!("link {shown:?} has no target")))?;
                if kind == EntryType::Link {
                    return self.hard_link(&parent, name, &target, &shown);
                }
                remove(&parent, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name).map_err(errno(what()))?;
                rustix::fs::chownat(&parent, name, Some(attributes.uid), Some(attributes.gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(errno(what()))
            }
            EntryType::Fifo => {
                remove(&parent, name)?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, attributes.mode, 0).map_err(errno(what()))?;
                rustix::fs::chownat(&parent, name, Some(attributes.uid), Some(attributes.gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(errno(what()))
            }
            // Every container gets a /dev of its own, so nodes there are never seen; elsewhere they have no business.
            EntryType::Char | EntryType::Block if parts[0] == "dev" => Ok(()),
            EntryType::Char | EntryType::Block => Err(ImageError::unsound(format!("it carries the device node {shown:?}"))),
            other => Err(ImageError::unsound(format!("entry {shown:?} is of the unknown type {:?}", other.as_byte() as char))),
        }
    }

    fn hard_link(&self, parent: &OwnedFd, name: &OsStr, target: &[u8], shown: &str) -> Result<()> {
        let target = parts(target)?;
        let (target_name, directory) = target.split_last().ok_or_else(|| ImageError::unsound(format!("link {shown:?} has no target")))?;
        let real = real_directory(self.top, self.lower, directory, |_, _| Ok(()))?;
        let mut path = real.clone();
        path.push(target_name.clone());
        let layers = || std::iter::once(self.top).chain(self.lower.iter().rev().map(PathBuf::as_path));
        let found = match look(layers(), &path) {
            Found::Other(path) => path,
            Found::Link(_) if look(std::iter::once(self.top), &path).is_some() => self.top.join(path.iter().collect::<PathBuf>()),
            _ => return Err(ImageError::unsound(format!("hard link {shown:?} has no such target"))),
        };
        let from = self.parent(directory)?;
        if !found.starts_with(self.top) {
            copy_up(&found, &from, target_name)?; // as overlayfs would: the file now belongs to this layer too
        }
        let same = rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno(format!("link {shown:?}")))?;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(existing) if (existing.st_dev, existing.st_ino) == (same.st_dev, same.st_ino) => return Ok(()),
            _ => remove(parent, name)?,
        }
        rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty()).map_err(errno(format!("link {shown:?}")))
    }
}

impl Found {
    fn is_some(&self) -> bool {
        !matches!(self, Found::Missing)
    }
}

fn copy_up(from: &Path, directory: &OwnedFd, name: &OsStr) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let what = || format!("copy {:?}", name.display());
    let mut source = File::open(from).map_err(ImageError::io(what()))?;
    let metadata = source.metadata().map_err(ImageError::io(what()))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(errno(what()))?);
    io::copy(&mut source, &mut copy).map_err(ImageError::io(what()))?;
    rustix::fs::fchown(&copy, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid()))).map_err(errno(what()))?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(metadata.mode() & 0o7777)).map_err(errno(what()))
}

fn set(fd: &OwnedFd, attributes: &Attributes, shown: &str) -> Result<()> {
    let what = || format!("unpack {shown:?}");
    rustix::fs::fchown(fd, Some(attributes.uid), Some(attributes.gid)).map_err(errno(what()))?;
    rustix::fs::fchmod(fd, attributes.mode).map_err(errno(what()))?;
    for (key, value) in &attributes.xattrs {
        rustix::fs::fsetxattr(fd, key.as_str(), value, XattrFlags::empty()).map_err(errno(format!("{}: set {key}", what())))?;
    }
    let time = rustix::fs::Timespec { tv_sec: attributes.mtime, tv_nsec: 0 };
    rustix::fs::futimens(fd, &rustix::fs::Timestamps { last_access: time, last_modification: time }).map_err(errno(what()))
}

fn make_directory(parent: &OwnedFd, name: &OsStr, what: &str) -> Result<()> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => return Ok(()),
        Ok(_) => remove(parent, name)?,
        Err(_) => {}
    }
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(errno(what))
}

/// Removes what an earlier entry of the same layer left at `name`.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(errno("replace a directory"))?;
            for entry in rustix::fs::Dir::read_from(&directory).map_err(errno("replace a directory"))? {
                let entry = entry.map_err(errno("replace a directory"))?;
                let child = OsStr::from_bytes(entry.file_name().to_bytes());
                if child != "." && child != ".." {
                    remove(&directory, child)?;
                }
            }
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(errno("replace a directory"))
        }
        Err(error) => Err(errno("replace an entry")(error)),
    }
}

/// OCI whiteouts become overlayfs ones.
fn whiteout(parent: &OwnedFd, hidden: &[u8], shown: &str) -> Result<()> {
    if hidden == b".wh..opq" {
        return rustix::fs::fsetxattr(parent.as_fd(), OPAQUE, b"y", XattrFlags::empty()).map_err(errno(format!("mark {shown:?} opaque")));
    }
    if hidden.starts_with(b".wh.") {
        return Ok(()); // aufs' own notes
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(ImageError::unsound(format!("whiteout {shown:?} has no name")));
    }
    let name = OsStr::from_bytes(hidden);
    remove(parent, name)?;
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0).map_err(errno(format!("make whiteout {shown:?}")))
}

#[cfg(test)]
mod tests;
