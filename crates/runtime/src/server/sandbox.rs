//! Making, stopping and removing sandboxes.

use std::collections::BTreeMap;
use std::sync::Arc;

use cri::v1::{NamespaceMode, PodSandboxConfig};
use tonic::Status;

use super::state::{Encoded, Sandbox};
use super::{Server, blocking, internal, spec};
use crate::cgroup::Cgroup;
use crate::ids;
use crate::network::{PortMapping, SandboxNetwork};
use crate::shim::client::ShimError;
use crate::shim::now_ns;
use crate::shim::protocol::{Request, SandboxSpec, VERSION};

fn port_mappings(config: &PodSandboxConfig) -> Vec<PortMapping> {
    let number = |port: i32| u16::try_from(port).ok();
    let convert = |m: &cri::v1::PortMapping| {
        let protocol = match m.protocol() {
            cri::v1::Protocol::Tcp => "TCP",
            cri::v1::Protocol::Udp => "UDP",
            cri::v1::Protocol::Sctp => "SCTP",
        };
        Some(PortMapping {
            protocol,
            container_port: number(m.container_port)?,
            host_port: number(m.host_port)?,
            host_ip: m.host_ip.parse().ok(),
        })
    };
    config.port_mappings.iter().filter_map(convert).collect()
}

impl Server {
    pub fn sandbox_network(&self, sandbox: &Sandbox) -> SandboxNetwork {
        let config = &sandbox.config.0;
        let metadata = config.metadata.clone().unwrap_or_default();
        SandboxNetwork {
            id: sandbox.id.clone(),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            netns: sandbox.netns(),
            port_mappings: port_mappings(config),
            annotations: config.annotations.clone().into_iter().collect::<BTreeMap<_, _>>(),
            ips: sandbox.ips.clone(),
        }
    }

    pub async fn run_sandbox(self: &Arc<Self>, config: PodSandboxConfig, handler: String) -> Result<String, Status> {
        if !handler.is_empty() {
            return Err(Status::invalid_argument(format!("failed to find runtime handler {handler} from runtime list")));
        }
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("sandbox config must include metadata"));
        }
        let id = ids::random();
        let cgroup = match config.linux.as_ref().map(|l| l.cgroup_parent.trim_end_matches('/')) {
            None | Some("") => format!("{}/pods/{id}", self.config.cgroup_parent),
            Some(parent) => parent.to_owned(),
        };
        let mut sandbox = Sandbox {
            id: id.clone(),
            config: Encoded(config),
            handler,
            created_ns: now_ns(),
            ready: true,
            shim_pid: 0,
            ips: Vec::new(),
            cgroup,
        };
        let outcome = self.make_sandbox(&mut sandbox).await;
        if let Err(status) = outcome {
            self.state().sandboxes.remove(&id);
            if let Err(error) = self.clean_sandbox(&sandbox).await {
                tracing::error!(sandbox = id, %error, "clean up a sandbox that failed");
            }
            return Err(status);
        }
        self.watch(id.clone());
        self.emit(&id, &id, cri::v1::ContainerEventType::ContainerCreatedEvent);
        self.emit(&id, &id, cri::v1::ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn make_sandbox(self: &Arc<Self>, sandbox: &mut Sandbox) -> Result<(), Status> {
        let config = &sandbox.config.0;
        let linux = config.linux.clone().unwrap_or_default();
        let namespaces = sandbox.namespaces();
        let dir = self.config.sandboxes_dir().join(&sandbox.id);
        let spec = SandboxSpec {
            id: sandbox.id.clone(),
            socket: self.config.shim_socket(&sandbox.id),
            log: dir.join("shim.log"),
            hostname: config.hostname.clone(),
            host_network: sandbox.host_network(),
            host_ipc: namespaces.ipc() == NamespaceMode::Node,
            shared_pid: namespaces.pid() == NamespaceMode::Pod,
            sysctls: linux.sysctls.into_iter().collect(),
            cgroup: self.config.shim_cgroup(&sandbox.id),
            version: VERSION,
        };
        let (server, pod, parent) = (Arc::clone(self), config.clone(), sandbox.cgroup.clone());
        sandbox.shim_pid = blocking(move || {
            let shm = server.config.run_dir.join("shm").join(&spec.id);
            let made =
                std::fs::create_dir(&dir).and_then(|()| spec::write_sandbox_files(&dir, &pod)).and_then(|()| std::fs::create_dir(&shm));
            made.and_then(|()| std::fs::set_permissions(&shm, std::os::unix::fs::PermissionsExt::from_mode(0o1777)))
                .map_err(internal("make the sandbox's files"))?;
            if !pod.log_directory.is_empty() {
                std::fs::create_dir_all(&pod.log_directory).map_err(internal("make the pod's log directory"))?;
            }
            Cgroup::new(parent).and_then(|c| c.create()).map_err(internal("make the pod's cgroup"))?;
            server.zygote.spawn(&spec).map_err(internal("failed to create pod sandbox"))
        })
        .await?;
        self.save_sandbox(sandbox);
        self.state().sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        if !sandbox.host_network() {
            let attached = self.network.attach(&self.sandbox_network(sandbox)).await;
            sandbox.ips = attached.map_err(internal(format!("failed to setup network for sandbox {:?}", sandbox.id)))?;
            self.save_sandbox(sandbox);
            self.state().sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        }
        Ok(())
    }

    /// Kills its containers, releases its network, ends its shim. Repeatable.
    pub async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let sandbox = match self.sandbox(id) {
            Ok(sandbox) => sandbox,
            Err(_) => return Ok(()),
        };
        let running: Vec<String> = self
            .state()
            .containers
            .values()
            .filter(|c| c.sandbox == sandbox.id && c.started_ns != 0 && c.exit.is_none())
            .map(|c| c.id.clone())
            .collect();
        for container in running {
            self.stop_container(&container, 0).await?;
        }
        if !sandbox.host_network() {
            self.network.detach(&self.sandbox_network(&sandbox)).await.map_err(internal("release the pod's network"))?;
        }
        let was_ready = {
            let mut state = self.state();
            let Some(entry) = state.sandboxes.get_mut(&sandbox.id) else { return Ok(()) };
            std::mem::replace(&mut entry.ready, false)
        };
        match self.ask(&sandbox.id, Request::Shutdown).await {
            Ok(_) | Err(ShimError::Gone { .. }) => {}
            Err(error) => return Err(internal("end the pod's shim")(error)),
        }
        let stopped = self.sandbox(&sandbox.id)?;
        self.save_sandbox(&stopped);
        if was_ready {
            self.emit(&sandbox.id, &sandbox.id, cri::v1::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Removes it with its containers. Removing what is not there succeeds.
    pub async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        let containers: Vec<String> = self.state().containers.values().filter(|c| c.sandbox == sandbox.id).map(|c| c.id.clone()).collect();
        for container in containers {
            self.remove_container(&container).await?;
        }
        self.clean_sandbox(&sandbox).await?;
        self.state().sandboxes.remove(&sandbox.id);
        self.emit(&sandbox.id, &sandbox.id, cri::v1::ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    async fn clean_sandbox(self: &Arc<Self>, sandbox: &Sandbox) -> Result<(), Status> {
        if !sandbox.host_network() && sandbox.shim_pid != 0 {
            self.network.detach(&self.sandbox_network(sandbox)).await.map_err(internal("release the pod's network"))?;
        }
        if let Err(error) = self.ask(&sandbox.id, Request::Shutdown).await {
            tracing::trace!(%error, "the shim is gone already");
        }
        let (server, sandbox) = (Arc::clone(self), sandbox.clone());
        blocking(move || {
            let own = Cgroup::new(server.config.shim_cgroup(&sandbox.id)).and_then(|c| c.destroy());
            own.map_err(internal("remove the shim's cgroup"))?;
            if sandbox.cgroup.starts_with(&format!("{}/pods/", server.config.cgroup_parent)) {
                Cgroup::new(sandbox.cgroup.clone()).and_then(|c| c.destroy()).map_err(internal("remove the pod's cgroup"))?;
            }
            remove_all(&server.config.run_dir.join("shm").join(&sandbox.id))?;
            remove_all(&server.config.shim_socket(&sandbox.id))?;
            remove_all(&server.config.sandboxes_dir().join(&sandbox.id))
        })
        .await
    }
}

/// Removes a file or a tree; absent is fine.
pub fn remove_all(path: &std::path::Path) -> Result<(), Status> {
    let outcome = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(format!("remove {}", path.display()))(error)),
        _ => Ok(()),
    }
}
