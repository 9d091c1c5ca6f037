//! A CRI server: images, snapshots, sandboxes, containers, streams.
//!
//! [`Runtime::start`] serves `runtime.v1` on a unix socket. Below it: [`zygote`] forks one [`shim`] per pod, which runs
//! the pod's containers and outlives this process. What a pod should be is not decided here: the kubelet does, over CRI.

pub mod cgroup;
mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ids;
pub mod images;
mod network;
pub mod seccomp;
mod server;
pub mod shim;
mod streaming;
mod teardown;
pub mod zygote;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use config::{Config, ImageLimits};
pub use network::{LoopbackOnly, NetworkError, PodNetwork, PortMapping, SandboxNetwork};
pub use server::{Handle, StartError};
pub use teardown::{TeardownError, teardown};

/// The embedded container runtime.
#[derive(Clone, Copy, Debug)]
pub struct Runtime;

impl Runtime {
    /// Takes up the sandboxes that already run, then serves CRI on `config.socket` until `cancel` is cancelled. Neither
    /// that nor the end of the process touches the pods.
    pub async fn start(config: Config, network: Arc<dyn PodNetwork>, cancel: CancellationToken) -> Result<Handle, StartError> {
        server::start(config, network, cancel).await
    }
}
