//! The CRI server: what it holds, how it starts, how it hears from shims.
//!
//! [`crate::Runtime::start`] is the way in. The services ([`runtime_service`], [`image_service`]) only translate;
//! [`sandbox`] and [`container`] act.

mod capabilities;
mod container;
mod image_service;
mod runtime_service;
mod sandbox;
mod spec;
pub(crate) mod state;
mod stats;
mod status;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::v1::{ContainerEventResponse, ContainerEventType};
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::images::{ImageError, Images};
use crate::shim::client::{Answer, ShimError, call};
use crate::shim::protocol::Request;
use crate::streaming::Streams;
use crate::zygote::client::Zygote;
use crate::{Config, PodNetwork};
use state::State;

/// Events kept for a slow listener; beyond, it misses some and lists again.
const EVENTS_MAX: usize = 1024;

/// Why the runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Images(#[from] ImageError),
}

/// Everything the services share.
pub(crate) struct Server {
    pub config: Config,
    pub network: Arc<dyn PodNetwork>,
    pub images: Images,
    pub zygote: Zygote,
    state: Mutex<State>,
    pub events: broadcast::Sender<ContainerEventResponse>,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
    pub streams: Streams,
}

/// A running runtime. Stopping or dropping it leaves the pods running.
pub struct Handle {
    server: Arc<Server>,
}

impl Handle {
    /// Where the CRI is served.
    pub fn socket(&self) -> PathBuf {
        self.server.config.socket.clone()
    }

    /// The image store, for `skiff image` and the built-in image.
    pub fn images(&self) -> Images {
        self.server.images.clone()
    }

    /// Ends serving and waits for what is under way. Containers run on.
    pub async fn stop(self) {
        self.server.cancel.cancel();
        self.server.tasks.close();
        self.server.tasks.wait().await;
    }
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let doing = doing.into();
    move |source| StartError::Io { doing, source }
}

/// Starts serving; ends when `cancel` is.
pub(crate) async fn start(config: Config, network: Arc<dyn PodNetwork>, cancel: CancellationToken) -> Result<Handle, StartError> {
    for dir in [config.sandboxes_dir(), config.containers_dir(), config.run_dir.join("shims"), config.run_dir.join("shm")] {
        std::fs::create_dir_all(&dir).map_err(io_error(format!("make {}", dir.display())))?;
    }
    let longest = config.shim_socket(&"x".repeat(32));
    if longest.as_os_str().len() > 107 {
        let source =
            io::Error::other(format!("{} is longer than a socket's name may be: choose a shorter run directory", longest.display()));
        return Err(StartError::Io { doing: "use the run directory".into(), source });
    }
    let images = Images::open(&config)?;
    let cancel = cancel.child_token();
    let tasks = TaskTracker::new();
    let streams = Streams::bind().await.map_err(io_error("listen for streams on loopback"))?;
    let server = Arc::new(Server {
        zygote: Zygote::new(config.zygote.clone()),
        state: Mutex::default(),
        events: broadcast::Sender::new(EVENTS_MAX),
        config,
        network,
        images,
        tasks,
        cancel,
        streams,
    });
    server.recover().await.map_err(io_error("read the state of sandboxes"))?;
    let listener = listen(&server.config.socket).map_err(io_error(format!("listen on {}", server.config.socket.display())))?;
    server.tasks.spawn(serve(Arc::clone(&server), listener));
    server.tasks.spawn(crate::streaming::serve(Arc::clone(&server)));
    Ok(Handle { server })
}

/// Takes over the socket of a daemon that is gone, but not of one that still answers.
fn listen(path: &std::path::Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another runtime serves it"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(server: Arc<Server>, listener: UnixListener) {
    let runtime = cri::v1::runtime_service_server::RuntimeServiceServer::new(runtime_service::Service(Arc::clone(&server)));
    let images = cri::v1::image_service_server::ImageServiceServer::new(image_service::Service(Arc::clone(&server)));
    let outcome = tonic::transport::Server::builder()
        .add_service(runtime.max_decoding_message_size(cri::MESSAGE_BYTES_MAX))
        .add_service(images.max_decoding_message_size(cri::MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), server.cancel.cancelled())
        .await;
    if let Err(error) = outcome {
        tracing::error!(%error, "serve CRI");
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

/// Errors of the host as gRPC ones.
pub(crate) fn internal<E: std::fmt::Display>(doing: impl std::fmt::Display) -> impl FnOnce(E) -> Status {
    move |error| Status::unknown(format!("{doing}: {error}"))
}

impl Server {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the shim of `sandbox`.
    pub async fn ask(&self, sandbox: &str, request: Request) -> Result<Answer, ShimError> {
        call(self.config.shim_socket(sandbox), request).await
    }

    /// Full id from a full id or an unambiguous start of one.
    pub fn sandbox_id(&self, id: &str) -> Result<String, Status> {
        find_id(self.state().sandboxes.keys(), id).ok_or_else(|| Status::not_found(format!("sandbox {id:?} not found")))
    }

    pub fn container_id(&self, id: &str) -> Result<String, Status> {
        find_id(self.state().containers.keys(), id).ok_or_else(|| Status::not_found(format!("container {id:?} not found")))
    }

    pub fn sandbox(&self, id: &str) -> Result<state::Sandbox, Status> {
        let id = self.sandbox_id(id)?;
        self.state().sandboxes.get(&id).cloned().ok_or_else(|| Status::not_found(format!("sandbox {id:?} not found")))
    }

    pub fn container(&self, id: &str) -> Result<state::Container, Status> {
        let id = self.container_id(id)?;
        self.state().containers.get(&id).cloned().ok_or_else(|| Status::not_found(format!("container {id:?} not found")))
    }

    /// Tells listeners of `GetContainerEvents`.
    pub fn emit(&self, container: &str, sandbox: &str, kind: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let state = self.state();
        let event = ContainerEventResponse {
            container_id: container.to_owned(),
            container_event_type: kind.into(),
            created_at: crate::shim::now_ns(),
            pod_sandbox_status: state.sandboxes.get(sandbox).map(status::sandbox),
            containers_statuses: state.containers.values().filter(|c| c.sandbox == sandbox).map(status::container).collect(),
        };
        if self.events.send(event).is_err() {
            tracing::trace!("the last event listener left");
        }
    }
}

fn find_id<'a>(ids: impl Iterator<Item = &'a String>, wanted: &str) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    let mut found = None;
    for id in ids {
        if id == wanted {
            return Some(id.clone());
        }
        if id.starts_with(wanted) {
            if found.is_some() {
                return None;
            }
            found = Some(id.clone());
        }
    }
    found
}
