//! The kubelet: a shell around `podsync`. It registers the node, watches its pods, observes them through CRI, executes
//! what [`podsync::Machine`] plans and writes statuses back. Deciding is not done here. Called by `skiff`.

mod config;
mod container;
mod dns;
mod execute;
mod gc;
mod hooks;
mod hosts;
mod images;
mod kubelet;
mod labels;
mod logs;
mod mounts;
mod node;
mod objects;
mod observe;
mod pleg;
mod probes;
mod sandbox;
mod security;
mod server;
mod status;
mod volumes;
mod worker;

pub use config::{Authorizer, Config, Request, ServerConfig};
pub use kubelet::Kubelet;
pub use server::identity;

/// The version this kubelet reports.
pub const VERSION: &str = "v1.36.2";

/// Why the kubelet stopped or a part of it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container runtime: {0}")]
    Connect(#[from] cri::ConnectError),
    #[error("container runtime: {}", .0.message())]
    Runtime(#[from] tonic::Status),
    #[error("API server: {0}")]
    Api(#[from] kube::Error),
    #[error("watching the API server: {0}")]
    Watch(#[from] client::Error),
    #[error("{what}: {source}; is the path writable and on a mounted file system?")]
    Io { what: String, source: std::io::Error },
    #[error("kubelet server: {0}")]
    Server(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}
