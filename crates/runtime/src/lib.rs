//! A CRI server: images, snapshots, sandboxes, containers, streams.
//!
//! [`Runtime::start`] serves `runtime.v1` on a unix socket. Below it: [`zygote`] forks one [`shim`] per pod, which runs
//! the pod's containers and outlives this process. What a pod should be is not decided here: the kubelet does, over CRI.

pub mod cgroup;
mod config;
mod ids;
pub mod images;
mod network;
pub mod seccomp;
pub mod shim;
pub mod zygote;

pub use config::{Config, ImageLimits};
pub use network::{LoopbackOnly, NetworkError, PodNetwork, PortMapping, SandboxNetwork};
