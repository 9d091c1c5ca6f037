//! Where a path of a layer really lies: links of the layer and of those below it are followed inside the image, never
//! on the host. Called by [`super::unpack`].

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::ImageError;

const LINKS_MAX: usize = 40;
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// What is at a path of a stack of layers.
#[derive(Debug)]
pub enum Found {
    Missing,
    /// A directory, with its metadata.
    Directory(std::fs::Metadata),
    Link(PathBuf),
    /// Anything else, and where it is on the host.
    Other(PathBuf),
}

/// The parts of an entry's name. Absolute names count from the image's root; `..` is refused.
pub fn parts(path: &[u8]) -> Result<Vec<OsString>, ImageError> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.as_os_str().len() > 4096 || path.as_os_str().as_bytes().contains(&0) {
        return Err(ImageError::unsound("an entry's name is too long or contains NUL"));
    }
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) if part.len() > 255 => return Err(ImageError::unsound("an entry's name is too long")),
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::ParentDir => return Err(ImageError::unsound(format!("entry {:?} leads out of the image", path.display()))),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}

fn look_in(layer: &Path, parts: &[OsString], hidden: &mut bool) -> Option<Found> {
    let mut path = layer.to_owned();
    for (index, part) in parts.iter().enumerate() {
        path.push(part);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { return None };
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            return Some(Found::Missing); // a whiteout
        }
        let last = index + 1 == parts.len();
        if kind.is_dir() {
            *hidden |= matches!(xattr::get(&path, OPAQUE), Ok(Some(value)) if value == b"y");
            if last {
                return Some(Found::Directory(metadata));
            }
        } else if !last {
            return Some(Found::Missing);
        } else if kind.is_symlink() {
            return std::fs::read_link(&path).ok().map(Found::Link);
        } else {
            return Some(Found::Other(path));
        }
    }
    None
}

/// Looks for a path whose directories hold no links, in `layers`, topmost first.
pub fn look<'a>(layers: impl Iterator<Item = &'a Path>, parts: &[OsString]) -> Found {
    let mut hidden = false;
    for layer in layers {
        if let Some(found) = look_in(layer, parts, &mut hidden) {
            return found;
        }
        if hidden {
            break;
        }
    }
    Found::Missing
}

/// Follows the links in `directory`. `missing` is called for each part that has to be made in the topmost layer: with its
/// path and, if a lower layer has it, its metadata.
pub fn real_directory(
    top: &Path,
    lower: &[PathBuf],
    directory: &[OsString],
    mut missing: impl FnMut(&[OsString], Option<&std::fs::Metadata>) -> Result<(), ImageError>,
) -> Result<Vec<OsString>, ImageError> {
    let mut queue: VecDeque<OsString> = directory.iter().cloned().collect();
    let mut at: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(part) = queue.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        let mut hidden = false;
        let here = look_in(top, &at, &mut hidden);
        let is_here = matches!(here, Some(Found::Directory(_)));
        let found = here.unwrap_or_else(|| look(std::iter::once(top).chain(lower.iter().rev().map(PathBuf::as_path)), &at));
        match found {
            Found::Directory(metadata) => {
                if !is_here {
                    missing(&at, Some(&metadata))?;
                }
            }
            Found::Link(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(ImageError::unsound("too many symbolic links"));
                }
                at.pop();
                if target.is_absolute() {
                    at.clear();
                }
                let parts: Vec<OsString> = target
                    .components()
                    .filter_map(|c| match c {
                        Component::Normal(part) => Some(part.to_owned()),
                        Component::ParentDir => Some("..".into()),
                        _ => None,
                    })
                    .collect();
                for part in parts.into_iter().rev() {
                    queue.push_front(part);
                }
            }
            Found::Missing => missing(&at, None)?,
            Found::Other(_) => {
                return Err(ImageError::unsound(format!("{:?} is not a directory", at.iter().collect::<PathBuf>().display())));
            }
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_confined() {
        assert!(parts(b"../x").is_err() && parts(b"a/../../x").is_err() && parts(b"a\0b").is_err());
        assert_eq!(parts(b"/etc/./passwd").unwrap(), ["etc", "passwd"]);
        assert!(parts(b"./").unwrap().is_empty());
    }

    #[test]
    fn links_stay_inside() {
        let (top, low) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(low.path().join("usr/lib")).unwrap();
        for (link, target) in [("lib", "usr/lib"), ("out", "../../../../usr"), ("abs", "/usr"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, low.path().join(link)).unwrap();
        }
        let real = |path: &str| {
            real_directory(top.path(), &[low.path().to_owned()], &parts(path.as_bytes()).unwrap(), |_, _| Ok(()))
                .map(|p| p.iter().collect::<PathBuf>().display().to_string())
        };
        assert_eq!(real("lib").unwrap(), "usr/lib");
        assert_eq!(real("out/lib").unwrap(), "usr/lib");
        assert_eq!(real("abs/new").unwrap(), "usr/new");
        assert!(real("loop/x").is_err());
    }
}
