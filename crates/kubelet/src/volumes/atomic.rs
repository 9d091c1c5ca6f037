//! Writes a set of files so that readers see all of the old or all of the new: a fresh directory and one rename of the
//! `..data` link (upstream's `AtomicWriter`, with the same names).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

/// Relative path -> bytes and mode.
pub type Payload = BTreeMap<String, (Vec<u8>, u32)>;

const DATA: &str = "..data";

/// Who the files belong to: fsGroup, or the one user all containers run as.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

impl Owner {
    /// Whether the files belong to somebody but root.
    pub fn is_set(self) -> bool {
        self.user.is_some() || self.group.is_some()
    }

    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Owner::default() };
        let context = spec.security_context.as_ref();
        let group = context.and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok());
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let users: BTreeSet<Option<i64>> =
            all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(context.and_then(|c| c.run_as_user))).collect();
        let one = if users.len() == 1 { users.into_iter().next().flatten() } else { None };
        Owner { user: one.filter(|_| group.is_none()).and_then(|u| u32::try_from(u).ok()), group }
    }
}

fn checked(path: &str) -> io::Result<&Path> {
    let p = Path::new(path);
    let plain = p.components().all(|c| matches!(c, Component::Normal(_))) && !path.is_empty();
    if plain && !path.starts_with("..") && path.len() <= 4096 {
        Ok(p)
    } else {
        Err(io::Error::other(format!("invalid path: {path:?} must be relative, without '..', and not start with '..'")))
    }
}

fn current(at: &Path) -> Option<PathBuf> {
    fs::read_link(at.join(DATA)).ok()
}

/// Whether `dir` holds exactly the payload.
fn same(dir: &Path, payload: &Payload) -> bool {
    let mut found = 0usize;
    let mut todo = vec![dir.to_owned()];
    while let Some(d) = todo.pop() {
        for entry in fs::read_dir(&d).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    found == payload.len() && payload.iter().all(|(name, (bytes, _))| fs::read(dir.join(name)).is_ok_and(|b| b == *bytes))
}

/// Makes the directory show the payload. Returns whether anything changed.
pub fn write(at: &Path, payload: &Payload, owner: Owner) -> io::Result<bool> {
    for name in payload.keys() {
        checked(name)?;
    }
    fs::create_dir_all(at)?;
    fs::set_permissions(at, fs::Permissions::from_mode(if owner.group.is_some() { 0o3777 } else { 0o1777 }))?;
    let old = current(at);
    if old.as_ref().is_some_and(|o| same(&at.join(o), payload)) {
        return Ok(false);
    }
    let mut number = 1u64;
    let fresh = loop {
        let name = format!("..{}.{number}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"));
        match fs::create_dir(at.join(&name)) {
            Ok(()) => break name,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 10_000 => number += 1,
            Err(e) => return Err(e),
        }
    };
    let dir = at.join(&fresh);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    for (name, (bytes, mode)) in payload {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        let mode = if owner.group.is_some() { mode | 0o440 } else { *mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if owner.user.is_some() || owner.group.is_some() {
            chown(&path, owner.user, owner.group)?;
        }
    }
    let next = at.join("..data_tmp");
    if fs::symlink_metadata(&next).is_ok() {
        fs::remove_file(&next)?;
    }
    symlink(&fresh, &next)?;
    fs::rename(&next, at.join(DATA))?;
    links(at, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(at.join(old))?;
    }
    Ok(true)
}

/// The visible names: links into `..data`, and none for what is gone.
fn links(at: &Path, payload: &Payload) -> io::Result<()> {
    let first = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(|n| first(n)).collect();
    for name in &wanted {
        let link = at.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(items: &[(&str, &str)]) -> Payload {
        items.iter().map(|(k, v)| ((*k).to_owned(), (v.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn switches_all_at_once_and_removes_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(write(at, &payload(&[("a", "1"), ("d/b", "2")]), Owner::default()).unwrap());
        assert_eq!(fs::read_to_string(at.join("d/b")).unwrap(), "2");
        assert_eq!(fs::read_link(at.join("a")).unwrap(), Path::new("..data/a"));
        assert!(!write(at, &payload(&[("a", "1"), ("d/b", "2")]), Owner::default()).unwrap(), "nothing to do");
        let before = fs::read_link(at.join(DATA)).unwrap();
        assert!(write(at, &payload(&[("a", "3")]), Owner::default()).unwrap());
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(at.join("d")).is_err());
        assert!(!at.join(before).exists());
        for bad in ["../x", "/x", "a/../../x", "..x", ""] {
            assert!(write(at, &payload(&[(bad, "")]), Owner::default()).is_err(), "{bad}");
        }
    }
}
