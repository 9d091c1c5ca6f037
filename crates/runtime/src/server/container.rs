//! Creating, starting, stopping and removing containers, and running commands in them.

use std::sync::Arc;
use std::time::Duration;

use cri::v1::{ContainerConfig, ContainerEventType, LinuxContainerResources, Signal};
use tonic::Status;

use super::sandbox::remove_all;
use super::state::{Container, Encoded, exit_channel};
use super::{Server, blocking, internal, spec};
use crate::cgroup::Cgroup;
use crate::ids;
use crate::shim::client::ShimError;
use crate::shim::now_ns;
use crate::shim::protocol::{ExecSpec, Exit, Identity, Request, Response};
use crate::streaming::Session;

const SIGKILL: i32 = libc::SIGKILL;

/// `SIGTERM`, `TERM`, `15`, `RTMIN+3`.
pub fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.trim_start_matches(['+', '-']).parse::<i32>().ok() };
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return offset(&rest.replace("PLUS", "")).map(|n| 34 + n);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        return offset(&rest.replace("MINUS", "")).map(|n| 64 - n);
    }
    let bare = match bare {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

impl Container {
    fn stop_signal(&self) -> i32 {
        let asked = self.config.0.stop_signal();
        let name = if asked == Signal::RuntimeDefault { self.image_stop_signal.as_str() } else { asked.as_str_name() };
        signal_number(name).unwrap_or(libc::SIGTERM)
    }
}

impl Server {
    pub async fn create_container(self: &Arc<Self>, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let sandbox = self.sandbox(sandbox)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("container config must include metadata"));
        }
        let name = config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default();
        let image = self.images.find(&name).ok_or_else(|| Status::not_found(format!("failed to resolve image {name:?}: not found")))?;
        let namespaces = config.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|s| s.namespace_options.as_ref());
        let target = namespaces.map(|n| n.target_id.clone()).filter(|t| !t.is_empty());
        let target_pid = target.and_then(|t| self.container(&t).ok()).filter(|c| c.exit.is_none() && c.pid > 0).map(|c| c.pid);
        let id = ids::random();
        let (server, own_id) = (Arc::clone(self), id.clone());
        let container = blocking(move || {
            let layers = server.images.layer_dirs(&image);
            let inputs = spec::Inputs {
                config: &server.config,
                sandbox: &sandbox,
                container: &config,
                image: &image.config,
                layers,
                id: &own_id,
                target_pid,
            };
            let spec = spec::container(&inputs)?;
            for part in ["rootfs", "upper", "work"] {
                std::fs::create_dir_all(spec.dir.join(part)).map_err(internal("make the container's directory"))?;
            }
            if let Some(dir) = spec.log.as_ref().and_then(|l| l.parent()) {
                std::fs::create_dir_all(dir).map_err(internal("make the log directory"))?;
            }
            let container = Container {
                id: own_id,
                sandbox: sandbox.id.clone(),
                config: Encoded(config),
                image_ref: image.digests.first().unwrap_or(&image.id).clone(),
                image_id: image.id.clone(),
                image_stop_signal: image.config.stop_signal.clone(),
                spec,
                created_ns: now_ns(),
                started_ns: 0,
                pid: 0,
                identity: Identity::default(),
                exit: None,
                start_error: None,
                ended: exit_channel(),
            };
            server.save_container(&container);
            Ok(container)
        })
        .await?;
        let sandbox = container.sandbox.clone();
        self.state().containers.insert(id.clone(), container);
        self.emit(&id, &sandbox, ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        if container.started_ns != 0 || container.exit.is_some() {
            return Err(Status::failed_precondition(format!("container {:?} is not in created state", container.id)));
        }
        let outcome = self.ask(&container.sandbox, Request::Start(Box::new(container.spec.clone()))).await;
        let mut state = self.state();
        let Some(entry) = state.containers.get_mut(&container.id) else { return Err(Status::not_found("the container was removed")) };
        match outcome {
            Ok(answer) => {
                if let Response::Started(started) = answer.response {
                    entry.started_ns = started.started_ns;
                    entry.pid = started.pid;
                    entry.identity = started.identity;
                }
                self.save_container(entry);
                drop(state);
                self.emit(&container.id, &container.sandbox, ContainerEventType::ContainerStartedEvent);
                Ok(())
            }
            Err(error) => {
                let text = format!("failed to start container: {error}");
                entry.start_error = Some(text.clone());
                entry.exit = Some(Exit { code: 128, finished_ns: now_ns(), oom_killed: false, lost: false });
                entry.ended.send_replace(true);
                self.save_container(entry);
                Err(Status::unknown(text))
            }
        }
    }

    /// Asks nicely, waits, then kills. Stopping what does not run succeeds.
    pub async fn stop_container(self: &Arc<Self>, id: &str, timeout_s: i64) -> Result<(), Status> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if container.started_ns == 0 || container.exit.is_some() {
            return Ok(());
        }
        let mut ended = container.ended.subscribe();
        if timeout_s > 0 {
            let request = Request::Signal { container: container.id.clone(), signal: container.stop_signal(), all: false };
            self.tell(&container, request).await?;
            let grace = Duration::from_secs(timeout_s.unsigned_abs());
            if tokio::time::timeout(grace, ended.wait_for(|e| *e)).await.is_ok() {
                return Ok(());
            }
        }
        self.tell(&container, Request::Signal { container: container.id.clone(), signal: SIGKILL, all: true }).await?;
        match tokio::time::timeout(Duration::from_secs(120), ended.wait_for(|e| *e)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::deadline_exceeded(format!("container {:?} does not end though killed", container.id))),
        }
    }

    /// A request whose goal is met when the shim is gone.
    async fn tell(&self, container: &Container, request: Request) -> Result<(), Status> {
        match self.ask(&container.sandbox, request).await {
            Ok(_) | Err(ShimError::Gone { .. } | ShimError::NotFound(_)) => Ok(()),
            Err(error) => Err(internal("stop the container")(error)),
        }
    }

    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Status> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(&container.id, 0).await?;
        self.tell(&container, Request::Remove { container: container.id.clone() }).await?;
        let spec = container.spec.clone();
        blocking(move || {
            Cgroup::new(spec.cgroup.clone()).and_then(|c| c.destroy()).map_err(internal("remove the container's cgroup"))?;
            remove_all(&spec.dir)
        })
        .await?;
        self.state().containers.remove(&container.id);
        self.emit(&container.id, &container.sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// A container that runs, or why not.
    pub fn running(&self, id: &str) -> Result<Container, Status> {
        let container = self.container(id)?;
        if container.started_ns == 0 || container.exit.is_some() {
            return Err(Status::failed_precondition(format!("container {:?} is not running", container.id)));
        }
        Ok(container)
    }

    pub async fn update_resources(self: &Arc<Self>, id: &str, linux: LinuxContainerResources) -> Result<(), Status> {
        let container = self.container(id)?;
        let update = spec::resources(&linux);
        let (cgroup, limits) = (container.spec.cgroup.clone(), update.clone());
        if container.started_ns != 0 && container.exit.is_none() {
            blocking(move || Cgroup::new(cgroup).and_then(|c| c.limit(&limits)).map_err(internal("update the container's limits"))).await?;
        }
        let mut state = self.state();
        if let Some(entry) = state.containers.get_mut(&container.id) {
            entry.spec.resources = update;
            if let Some(config) = &mut entry.config.0.linux {
                config.resources = Some(linux);
            }
            self.save_container(entry);
        }
        Ok(())
    }

    /// Starts a command in a running container.
    pub async fn exec(&self, id: &str, command: Vec<String>, tty: bool, stdin: bool) -> Result<Session, Status> {
        let container = self.running(id)?;
        if command.is_empty() {
            return Err(Status::invalid_argument("no command specified"));
        }
        let mut process = container.spec.process.clone();
        process.args = command;
        process.tty = tty;
        if tty && !process.env.iter().any(|(key, _)| key == "TERM") {
            process.env.push(("TERM".into(), "xterm".into()));
        }
        let request = Request::Exec(Box::new(ExecSpec { container: container.id.clone(), process, stdin: stdin && !tty }));
        let answer = self.ask(&container.sandbox, request).await.map_err(internal("failed to exec in container"))?;
        Session::exec(answer, tty, stdin).map_err(internal("exec"))
    }

    /// Runs a command to its end. Output beyond 16 MiB is dropped, as upstream does.
    pub async fn exec_sync(&self, id: &str, command: Vec<String>, timeout_s: i64) -> Result<cri::v1::ExecSyncResponse, Status> {
        let mut session = self.exec(id, command, false, false).await?;
        let pid = session.pid;
        let run = session.collect(cri::MESSAGE_BYTES_MAX / 2 - 4096);
        let outcome = if timeout_s > 0 {
            match tokio::time::timeout(Duration::from_secs(timeout_s.unsigned_abs()), run).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    if let Err(error) = sys::process::kill(pid, SIGKILL) {
                        tracing::debug!(pid, %error, "kill the command");
                    }
                    return Err(Status::deadline_exceeded(format!("command timed out: timeout {timeout_s}s exceeded")));
                }
            }
        } else {
            run.await
        };
        let (stdout, stderr, exit_code) = outcome.map_err(internal("exec"))?;
        Ok(cri::v1::ExecSyncResponse { stdout, stderr, exit_code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_any_name() {
        for (name, number) in [
            ("SIGTERM", Some(15)),
            ("KILL", Some(9)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMINPLUS3", Some(37)),
            ("SIGRTMAXMINUS1", Some(63)),
            ("99", None),
            ("", None),
            ("NOPE", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
