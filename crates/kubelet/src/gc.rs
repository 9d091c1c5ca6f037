//! Tidying: rotates container logs, removes images nobody uses when the disk fills, and leftovers of pods that are gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::kubelet::Node;
use crate::labels;

const LOGS_EVERY: Duration = Duration::from_secs(10);
/// Images are looked at every so many rounds of logs.
const IMAGES_ROUNDS: u32 = 30;

/// Runs until cancelled.
pub async fn keep_tidy(node: Arc<Node>, cancel: CancellationToken) -> Result<(), Error> {
    for round in 1u32.. {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOGS_EVERY) => {}
        }
        if let Err(error) = rotate_logs(&node).await {
            tracing::debug!(%error, "logs could not be rotated");
        }
        if let Err(error) = collect_orphans(&node).await {
            tracing::debug!(%error, "what pods left could not be looked for");
        }
        if round % IMAGES_ROUNDS == 0
            && let Err(error) = collect_images(&node).await
        {
            node.record_node(true, "ImageGCFailed", error.to_string());
        }
    }
    Ok(())
}

/// Removes directories of pods that are neither in the API nor in the runtime: left when the node went down while they
/// were being deleted. Those of pods that have a worker are the worker's.
async fn collect_orphans(node: &Node) -> Result<(), Error> {
    if !node.pods.has_synced() {
        return Ok(());
    }
    let sandboxes = node.cri.runtime.clone().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items;
    let mut known: BTreeSet<String> = sandboxes.into_iter().filter_map(|s| s.labels.get(labels::POD_UID).cloned()).collect();
    let (pods_dir, logs_dir) = (node.config.root_dir.join("pods"), node.config.pod_logs_dir.clone());
    let read = tokio::task::spawn_blocking(move || (names(&pods_dir), names(&logs_dir))).await;
    let found = read.map_err(std::io::Error::other).map_err(Error::io("read the pods' directories"))?;
    // Read after the directories: a pod that came meanwhile is then known.
    known.extend(node.pods.list().iter().filter_map(|p| p.metadata.uid.clone()));
    let (dirs, logs) = found;
    let lost: BTreeSet<String> = dirs.into_iter().filter(|uid| !known.contains(uid)).collect();
    // The logs' directory may be shared with other nodes of this machine: only what a lost pod of ours had there.
    let of_lost = |name: &String| name.rsplit('_').next().is_some_and(|uid| lost.contains(uid));
    let logs = logs.into_iter().filter(of_lost).map(|name| node.config.pod_logs_dir.join(name));
    let gone: Vec<PathBuf> = logs.chain(lost.iter().map(|uid| node.config.pod_dir(uid))).collect();
    for path in gone {
        tracing::info!(path = %path.display(), "removing what a pod that is gone has left");
        let shown = path.display().to_string();
        let removed = tokio::task::spawn_blocking(move || crate::volumes::remove(&path)).await;
        removed.map_err(std::io::Error::other).and_then(|r| r).map_err(Error::io(format!("remove {shown}")))?;
    }
    Ok(())
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

async fn rotate_logs(node: &Node) -> Result<(), Error> {
    let running = v1::ContainerFilter {
        state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
        ..Default::default()
    };
    let list = node.cri.runtime.clone().list_containers(v1::ListContainersRequest { filter: Some(running) }).await?.into_inner().containers;
    for c in list {
        let label = |k: &str| c.labels.get(k).map(String::as_str).unwrap_or_default();
        let (namespace, name, uid) = (label(labels::POD_NAMESPACE), label(labels::POD_NAME), label(labels::POD_UID));
        if uid.is_empty() {
            continue;
        }
        let attempt = c.metadata.as_ref().map_or(0, |m| m.attempt);
        let log = node.config.pod_log_dir(namespace, name, uid).join(label(labels::CONTAINER_NAME)).join(format!("{attempt}.log"));
        let size = tokio::fs::metadata(&log).await.map_or(0, |m| m.len());
        if size < node.config.container_log_max_bytes {
            continue;
        }
        let keep = node.config.container_log_max_files;
        let path = log.clone();
        let moved = tokio::task::spawn_blocking(move || rotate(&path, keep)).await;
        if let Err(error) = moved.map_err(std::io::Error::other).and_then(|r| r) {
            tracing::warn!(path = %log.display(), %error, "a log could not be rotated");
            continue;
        }
        node.cri.runtime.clone().reopen_container_log(v1::ReopenContainerLogRequest { container_id: c.id }).await?;
    }
    Ok(())
}

/// Renames a log out of the way with the time in its name, and removes the oldest beyond `keep` files in all.
fn rotate(log: &Path, keep: u32) -> std::io::Result<()> {
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut old: Vec<PathBuf> = Vec::new();
    for entry in log.parent().map(std::fs::read_dir).transpose()?.into_iter().flatten() {
        let path = entry?.path();
        let this = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if this != name && this.starts_with(&format!("{name}.")) {
            old.push(path);
        }
    }
    old.sort();
    // The one written now and the one just closed count too.
    let spare = usize::try_from(keep.saturating_sub(2)).unwrap_or(0);
    let excess = old.len().saturating_sub(spare);
    for path in old.into_iter().take(excess) {
        std::fs::remove_file(path)?;
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    std::fs::rename(log, log.with_file_name(format!("{name}.{stamp}")))
}

async fn collect_images(node: &Node) -> Result<(), Error> {
    let info = node.cri.images.clone().image_fs_info(v1::ImageFsInfoRequest {}).await?.into_inner();
    let Some(root) = info.image_filesystems.first().and_then(|f| f.fs_id.as_ref()).map(|f| f.mountpoint.clone()) else { return Ok(()) };
    let stat = nix::sys::statvfs::statvfs(Path::new(&root)).map_err(|e| Error::io(format!("size of {root}"))(e.into()))?;
    let total = stat.blocks() * stat.fragment_size();
    let used = total.saturating_sub(stat.blocks_available() * stat.fragment_size());
    if total == 0 || used * 100 / total < u64::from(node.config.image_gc_high_percent) {
        return Ok(());
    }
    let mut free = used.saturating_sub(total / 100 * u64::from(node.config.image_gc_low_percent));
    let containers = node.cri.runtime.clone().list_containers(v1::ListContainersRequest::default()).await?.into_inner().containers;
    let used: BTreeSet<String> = containers.into_iter().flat_map(|c| [c.image_id, c.image_ref]).collect();
    let images = node.cri.images.clone().list_images(v1::ListImagesRequest::default()).await?.into_inner().images;
    for image in images {
        let in_use = used.contains(&image.id) || image.repo_digests.iter().any(|d| used.contains(d));
        if free == 0 || image.pinned || in_use {
            continue;
        }
        let spec = v1::ImageSpec { image: image.id.clone(), ..Default::default() };
        node.cri.images.clone().remove_image(v1::RemoveImageRequest { image: Some(spec) }).await?;
        free = free.saturating_sub(image.size);
    }
    if free > 0 {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {free} bytes, but only found 0 bytes eligible to free."
        );
        node.record_node(true, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_five_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for old in ["20200101-000000", "20200102-000000", "20200103-000000", "20200104-000000"] {
            std::fs::write(dir.path().join(format!("0.log.{old}")), "x").unwrap();
        }
        std::fs::write(&log, "new").unwrap();
        rotate(&log, 5).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "with the one that is opened again five: {names:?}");
        assert!(names[0].ends_with("20200102-000000") && !log.exists());
    }
}
