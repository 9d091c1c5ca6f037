//! Hearing from shims: exits as they happen, and that a shim is gone. Rebuilding the state after a restart.

use std::io;
use std::sync::Arc;

use cri::v1::ContainerEventType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Server;
use super::state::{Container, Sandbox, load_all, save};
use crate::cgroup::Cgroup;
use crate::shim::frame;
use crate::shim::protocol::{Event, Exit, Request, ShimState};

impl Server {
    /// Reads the state files and asks the shims. What a dead shim left is cleaned up by its watcher.
    pub async fn recover(self: &Arc<Self>) -> io::Result<()> {
        let sandboxes: Vec<Sandbox> = load_all(&self.config.sandboxes_dir(), "sandbox.json")?;
        let containers: Vec<Container> = load_all(&self.config.containers_dir(), "container.json")?;
        {
            let mut state = self.state();
            state.sandboxes = sandboxes.into_iter().map(|s| (s.id.clone(), s)).collect();
            state.containers = containers.into_iter().map(|c| (c.id.clone(), c)).collect();
        }
        let ready: Vec<Sandbox> = self.state().sandboxes.values().filter(|s| s.ready).cloned().collect();
        for sandbox in ready {
            match self.ask(&sandbox.id, Request::State).await {
                Ok(answer) => {
                    if let crate::shim::protocol::Response::State(state) = answer.response {
                        self.merge(&sandbox.id, &state);
                    }
                    if !sandbox.host_network()
                        && let Err(error) = self.network.check(&self.sandbox_network(&sandbox)).await
                    {
                        tracing::warn!(sandbox = sandbox.id, %error, "check the pod's network");
                    }
                    self.watch(sandbox.id);
                }
                Err(error) => {
                    tracing::warn!(sandbox = sandbox.id, %error, "the sandbox is dead");
                    self.shim_died(&sandbox.id).await;
                }
            }
        }
        Ok(())
    }

    /// Follows the shim of `sandbox` until it ends.
    pub fn watch(self: &Arc<Self>, sandbox: String) {
        let server = Arc::clone(self);
        let task = async move {
            let outcome = tokio::select! {
                biased;
                () = server.cancel.cancelled() => return,
                outcome = server.follow(&sandbox) => outcome,
            };
            if let Err(error) = outcome {
                tracing::debug!(sandbox, %error, "the shim's events ended");
            }
            server.shim_died(&sandbox).await;
        };
        self.tasks.spawn(task);
    }

    async fn follow(&self, sandbox: &str) -> io::Result<()> {
        let mut socket = UnixStream::connect(self.config.shim_socket(sandbox)).await?;
        socket.write_all(&frame::encode(&Request::Subscribe)?).await?;
        let mut buffer = Vec::new();
        loop {
            while let Some((event, used)) = frame::decode::<Event>(&buffer)? {
                buffer.drain(..used);
                match event {
                    Event::State(state) => self.merge(sandbox, &state),
                    Event::Exited { container, exit } => self.exited(&container, exit),
                }
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    fn merge(&self, sandbox: &str, shim: &ShimState) {
        for found in &shim.containers {
            let mut state = self.state();
            let Some(container) = state.containers.get_mut(&found.id).filter(|c| c.sandbox == sandbox) else { continue };
            if container.started_ns == 0 {
                container.started_ns = found.started_ns;
                container.pid = found.pid;
                container.identity = found.identity.clone();
                self.save_container(container);
            }
            drop(state);
            if let Some(exit) = &found.exit {
                self.exited(&found.id, exit.clone());
            }
        }
    }

    /// Records an exit, once.
    pub fn exited(&self, id: &str, exit: Exit) {
        let mut state = self.state();
        let Some(container) = state.containers.get_mut(id).filter(|c| c.exit.is_none()) else { return };
        container.exit = Some(exit);
        container.ended.send_replace(true);
        self.save_container(container);
        let sandbox = container.sandbox.clone();
        drop(state);
        self.emit(id, &sandbox, ContainerEventType::ContainerStoppedEvent);
    }

    /// State files are a help, not the truth: a failure to write one is reported and survived.
    pub fn save_container(&self, container: &Container) {
        let path = self.config.containers_dir().join(&container.id).join("container.json");
        if let Err(error) = save(&path, container) {
            tracing::error!(path = %path.display(), %error, "write the container's state");
        }
    }

    pub fn save_sandbox(&self, sandbox: &Sandbox) {
        let path = self.config.sandboxes_dir().join(&sandbox.id).join("sandbox.json");
        if let Err(error) = save(&path, sandbox) {
            tracing::error!(path = %path.display(), %error, "write the sandbox's state");
        }
    }

    /// The shim ended, told to or not: nothing of its pod may run on.
    async fn shim_died(&self, id: &str) {
        let (sandbox, running): (Sandbox, Vec<Container>) = {
            let mut state = self.state();
            let Some(sandbox) = state.sandboxes.get_mut(id) else { return };
            sandbox.ready = false;
            let sandbox = sandbox.clone();
            (sandbox, state.containers.values().filter(|c| c.sandbox == id && c.started_ns != 0 && c.exit.is_none()).cloned().collect())
        };
        self.save_sandbox(&sandbox);
        for container in running {
            let cgroup = container.spec.cgroup.clone();
            let killed = super::blocking(move || {
                Cgroup::new(cgroup).and_then(|c| c.destroy()).map_err(super::internal("kill what the dead shim left"))
            });
            if let Err(error) = killed.await {
                tracing::error!(container = container.id, %error, "the shim died");
            }
            let written = std::fs::read(container.spec.dir.join("exit.json")).ok().and_then(|b| serde_json::from_slice(&b).ok());
            let lost = Exit { code: 255, finished_ns: crate::shim::now_ns(), oom_killed: false, lost: true };
            self.exited(&container.id, written.unwrap_or(lost));
        }
    }
}
