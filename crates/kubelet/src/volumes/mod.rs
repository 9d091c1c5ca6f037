//! A pod's volumes on the host: directories made and filled before its containers start, kept current while it lives,
//! removed after it. Called by the pod's worker.

mod atomic;
mod content;
mod host_path;
mod token;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;
use nix::mount::{MsFlags, mount};
use podsync::quantity::value;

use crate::kubelet::Node;
use crate::{labels, mounts};
pub use token::Tokens;

/// What preparing gave: where each volume is, and when some of it must be renewed.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub paths: BTreeMap<String, PathBuf>,
    pub renew_at: Option<Timestamp>,
}

fn dir(pod_dir: &Path, plugin: &str, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

fn failed(volume: &Volume, error: impl std::fmt::Display) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name)
}

/// Prepares all volumes of a pod; on a pod that has them, brings their content up to date.
pub async fn prepare(node: &Node, pod: &Pod, ips: &[String], tokens: &mut Tokens) -> Result<Prepared, String> {
    let (namespace, _, uid) = labels::identity(pod);
    let pod_dir = node.config.pod_dir(uid);
    for sub in ["volumes", "containers"] {
        fs::create_dir_all(pod_dir.join(sub)).map_err(|e| format!("error making pod data directories: {e}"))?;
    }
    let mut out = Prepared::default();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let path = if let Some(source) = &volume.empty_dir {
            empty_dir(pod, source, &dir(&pod_dir, "empty-dir", &volume.name)).map_err(|e| failed(volume, e))?
        } else if let Some(source) = &volume.host_path {
            host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default()).map_err(|e| failed(volume, e))?;
            PathBuf::from(&source.path)
        } else if let Some((plugin, payload)) =
            content::payload(node, pod, volume, ips, tokens, &mut out.renew_at).await.map_err(|e| failed(volume, e))?
        {
            let at = dir(&pod_dir, plugin, &volume.name);
            let (target, owner) = (at.clone(), atomic::Owner::of(pod));
            let written = tokio::task::spawn_blocking(move || {
                if plugin != "configmap" && plugin != "downward-api" {
                    in_memory(&target, None)?;
                }
                atomic::write(&target, &payload, owner)
            });
            written.await.map_err(|e| failed(volume, e))?.map_err(|e| failed(volume, e))?;
            at
        } else if let Some(claim) = claim_name(pod, volume) {
            claimed(node, namespace, &claim).await.map_err(|e| failed(volume, e))?
        } else {
            return Err(failed(volume, "no volume plugin matched"));
        };
        out.paths.insert(volume.name.clone(), path);
    }
    Ok(out)
}

fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    let own = || format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
    volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()).or_else(|| volume.ephemeral.as_ref().map(|_| own()))
}

/// The host directory behind a claim: volumes of type hostPath and local.
async fn claimed(node: &Node, namespace: &str, name: &str) -> Result<PathBuf, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(node.client.clone(), namespace);
    let claim =
        claims.get(name).await.map_err(|e| format!("error processing PVC {namespace}/{name}: failed to fetch PVC from API server: {e}"))?;
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.and_then(|s| s.volume_name).filter(|_| bound);
    let volume = volume.ok_or_else(|| format!("error processing PVC {namespace}/{name}: PVC is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(node.client.clone());
    let spec = volumes.get(&volume).await.map_err(|e| e.to_string())?.spec.unwrap_or_default();
    if let Some(source) = spec.host_path {
        host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?;
        return Ok(PathBuf::from(source.path));
    }
    if let Some(local) = spec.local {
        let path = PathBuf::from(local.path);
        return if path.exists() { Ok(path) } else { Err(format!("path {:?} does not exist", path.display())) };
    }
    Err("no volume plugin matched".to_owned())
}

fn empty_dir(pod: &Pod, source: &k8s_openapi::api::core::v1::EmptyDirVolumeSource, at: &Path) -> std::io::Result<PathBuf> {
    let fresh = !at.exists();
    fs::create_dir_all(at)?;
    if source.medium.as_deref() == Some("Memory") {
        let own = source.size_limit.as_ref().map(value).filter(|v| *v > 0);
        let limit = podsync::requests::pod_limits(pod).get("memory").map(|m| m / 1000);
        in_memory(at, own.into_iter().chain(limit).min())?;
    }
    if fresh {
        fs::set_permissions(at, fs::Permissions::from_mode(0o777))?;
        let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
        if let Some(group) = group.and_then(|g| u32::try_from(g).ok()) {
            std::os::unix::fs::chown(at, None, Some(group))?;
            fs::set_permissions(at, fs::Permissions::from_mode(0o2777))?;
        }
    }
    Ok(at.to_owned())
}

/// Mounts a tmpfs, unless there is one. Without the right to mount, the directory itself serves.
fn in_memory(at: &Path, size: Option<i64>) -> std::io::Result<()> {
    fs::create_dir_all(at)?;
    let here = fs::metadata(at)?;
    let above = at.parent().map(fs::metadata).transpose()?;
    use std::os::unix::fs::MetadataExt;
    if above.is_some_and(|a| a.dev() != here.dev()) || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let options = size.map(|s| format!("size={s}"));
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), options.as_deref())?;
    Ok(())
}

/// Removes what the pod had on the host. Contents of mounts are never deleted: they are unmounted first.
pub fn remove(pod_dir: &Path) -> std::io::Result<()> {
    mounts::unmount_all(pod_dir);
    match fs::remove_dir_all(pod_dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
