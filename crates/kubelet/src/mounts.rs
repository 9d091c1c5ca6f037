//! A container's volume mounts, and subPaths confined to their volume: opened with `openat2` beneath the volume's root
//! and bound from that very file descriptor, so that no swapped link can lead out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use nix::mount::{MsFlags, mount};
use podsync::expand::expand_strict;
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

fn propagation(m: &VolumeMount) -> i32 {
    match m.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer as i32,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional as i32,
        _ => v1::MountPropagation::PropagationPrivate as i32,
    }
}

/// The mounts of a container. An error is the message of `CreateContainerConfigError`.
pub fn of_container(
    pod: &Pod,
    c: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    pod_dir: &Path,
    vars: &BTreeMap<String, String>,
) -> Result<Vec<v1::Mount>, String> {
    let mut out = Vec::new();
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&m.name).ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", m.name, c.name))?;
        let sub = match (&m.sub_path, &m.sub_path_expr) {
            (Some(p), _) if !p.is_empty() => Some(p.clone()),
            (_, Some(expr)) if !expr.is_empty() => Some(expand_strict(expr, vars)?),
            _ => None,
        };
        let host = match sub {
            Some(sub) => {
                let at = pod_dir.join("volume-subpaths").join(&m.name).join(&c.name).join(index.to_string());
                bind_sub_path(volume, &sub, &at)
                    .map_err(|e| format!("failed to prepare subPath for volumeMount {:?} of container {:?}: {e}", m.name, c.name))?
            }
            None => volume.clone(),
        };
        let spec = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten().find(|v| v.name == m.name);
        let always_read_only =
            spec.is_some_and(|v| v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some());
        out.push(v1::Mount {
            container_path: if m.mount_path.starts_with('/') { m.mount_path.clone() } else { format!("/{}", m.mount_path) },
            host_path: host.display().to_string(),
            readonly: m.read_only == Some(true) || always_read_only,
            propagation: propagation(m),
            recursive_read_only: m.recursive_read_only.as_deref() == Some("Enabled"),
            ..Default::default()
        });
    }
    Ok(out)
}

fn io(e: rustix::io::Errno) -> std::io::Error {
    e.into()
}

/// Opens `sub` beneath `volume`, making missing directories, never leaving it.
fn open_beneath(volume: &Path, sub: &str) -> std::io::Result<OwnedFd> {
    let root: OwnedFd = fs::File::open(volume)?.into();
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let relative = Path::new(sub);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(std::io::Error::other("must be a relative path that does not contain '..'"));
    }
    match openat2(&root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), confined) {
        Ok(fd) => return Ok(fd),
        Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(io(e)),
    }
    let mut at = root;
    for part in relative.components() {
        let Component::Normal(name) = part else { continue };
        let open = |dir: &OwnedFd| openat2(dir.as_fd(), name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), confined);
        at = match open(&at) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&at, name, Mode::from_raw_mode(0o755)).map_err(io)?;
                open(&at).map_err(io)?
            }
            Err(e) => return Err(io(e)),
        };
    }
    Ok(at)
}

fn bind_sub_path(volume: &Path, sub: &str, at: &Path) -> std::io::Result<PathBuf> {
    if volume.is_file() {
        return Err(std::io::Error::other("the volume is a file"));
    }
    let fd = open_beneath(volume, sub)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    unmount_all(at);
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(at)?;
    } else {
        at.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(at, b"")?;
    }
    mount(Some(&source), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(at.to_owned())
}

/// Unmounts whatever is at or under a path.
pub fn unmount_all(path: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> =
        table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).filter(|p| p.starts_with(path)).collect();
    points.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    for point in points {
        if let Err(error) = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH) {
            tracing::warn!(path = %point.display(), %error, "unmount");
        }
    }
}

/// mountinfo writes blanks and backslashes as octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("v")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("v/out")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("v/up")).unwrap();
        let v = dir.path().join("v");
        assert!(open_beneath(&v, "a/b").is_ok());
        assert!(v.join("a/b").is_dir());
        for bad in ["../x", "/etc", "out/passwd", "up/x", "out"] {
            assert!(open_beneath(&v, bad).is_err(), "{bad}");
        }
    }
}
