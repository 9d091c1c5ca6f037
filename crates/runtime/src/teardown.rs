//! Removing everything an instance has on the host, whether or not its daemon runs: for `skiff down`.

use std::path::Path;

use crate::cgroup::Cgroup;
use crate::config::Config;
use crate::server::state::{Container, Sandbox, load_all};
use crate::shim::client::call_blocking;
use crate::shim::protocol::Request;

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct TeardownError {
    doing: String,
    source: std::io::Error,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> TeardownError {
    let doing = doing.into();
    move |source| TeardownError { doing, source }
}

fn remove(path: &Path) -> Result<(), TeardownError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(format!("remove {}", path.display()))(error)),
        _ => Ok(()),
    }
}

/// Ends every shim and container of this instance and removes their cgroups, sockets and state. Images stay when
/// `keep_images`. There are no mounts to undo: containers' mounts live in their own namespaces. The daemon must not run. Blocks.
pub fn teardown(config: &Config, keep_images: bool) -> Result<(), TeardownError> {
    let read = |dir: std::path::PathBuf| if dir.is_dir() { Some(dir) } else { None };
    let mut groups: Vec<String> = Vec::new();
    if let Some(dir) = read(config.sandboxes_dir()) {
        for sandbox in load_all::<Sandbox>(&dir, "sandbox.json").map_err(failed("read the state of sandboxes"))? {
            if let Err(error) = call_blocking(&config.shim_socket(&sandbox.id), &Request::Shutdown) {
                tracing::debug!(sandbox = sandbox.id, %error, "end a shim");
            }
        }
    }
    if let Some(dir) = read(config.containers_dir()) {
        groups.extend(
            load_all::<Container>(&dir, "container.json")
                .map_err(failed("read the state of containers"))?
                .into_iter()
                .map(|c| c.spec.cgroup),
        );
    }
    groups.push(config.cgroup_parent.clone());
    for group in groups {
        Cgroup::new(group.clone()).and_then(|c| c.destroy()).map_err(failed(format!("remove cgroup {group}")))?;
    }
    remove(&config.sandboxes_dir())?;
    remove(&config.containers_dir())?;
    for dir in ["shims", "shm"] {
        remove(&config.run_dir.join(dir))?;
    }
    match std::fs::remove_file(&config.socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove the CRI socket")(error)),
        _ => {}
    }
    if keep_images { Ok(()) } else { remove(&config.images_dir()) }
}
