//! The CRI configuration of a container (upstream's `generateContainerConfig`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod};
use podsync::expand::expand;
use podsync::{Failure, cgroup};

use crate::sandbox::linux_resources;
use crate::{labels, mounts, security};

/// What a container is made of besides its spec.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub image_id: &'a str,
    pub image_uid: Option<i64>,
    pub image_user: &'a str,
    pub env: Vec<(String, String)>,
    /// Host paths of the pod's volumes.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    pub pod_dir: &'a Path,
    pub node_memory_bytes: i64,
}

fn config_error(message: impl ToString) -> Failure {
    Failure::new("CreateContainerConfigError", message.to_string())
}

/// Makes the files and mounts a container needs, and its configuration. Blocking.
pub fn config(i: &Inputs<'_>) -> Result<v1::ContainerConfig, Failure> {
    let c = i.container;
    let vars: BTreeMap<String, String> = i.env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|s| expand(s, &vars)).collect();
    let message_path = message_file(i).map_err(|e| Failure::new("CreateContainerError", e.to_string()))?;
    let mut all = mounts::of_container(i.pod, c, i.volumes, i.pod_dir, &vars).map_err(config_error)?;
    let taken = |path: &str, all: &[v1::Mount]| all.iter().any(|m| m.container_path.trim_end_matches('/') == path);
    if !taken("/etc/hosts", &all) {
        all.push(plain("/etc/hosts", &i.pod_dir.join("etc-hosts")));
    }
    let inside = c.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log");
    all.push(plain(inside, &message_path));
    let security_context = security::container(i.pod, c, i.image_uid, i.image_user).map_err(config_error)?;
    let signal = c.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()).and_then(v1::Signal::from_str_name);
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: c.name.clone(), attempt: i.attempt }),
        image: Some(v1::ImageSpec {
            image: i.image_id.to_owned(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&c.command),
        args: expanded(&c.args),
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: i.env.iter().map(|(k, v)| v1::KeyValue { key: k.clone(), value: v.clone().into() }).collect(),
        mounts: all,
        labels: labels::container(i.pod, c).into_iter().collect(),
        annotations: labels::container_annotations(i.pod, c, i.attempt, &message_path.display().to_string()).into_iter().collect(),
        log_path: format!("{}/{}.log", c.name, i.attempt),
        stdin: c.stdin == Some(true),
        stdin_once: c.stdin_once == Some(true),
        tty: c.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(linux_resources(&cgroup::container(i.pod, c, i.node_memory_bytes))),
            security_context: Some(security_context),
        }),
        stop_signal: signal.map_or(0, |s| s as i32),
        ..Default::default()
    })
}

fn plain(inside: &str, host: &Path) -> v1::Mount {
    v1::Mount { container_path: inside.to_owned(), host_path: host.display().to_string(), ..Default::default() }
}

/// An empty file any user of the container may write.
fn message_file(i: &Inputs<'_>) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let dir = i.pod_dir.join("containers").join(&i.container.name);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("termination-log-{}", i.attempt));
    std::fs::write(&path, b"")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    Ok(path)
}
