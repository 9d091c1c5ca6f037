//! The seam to the pod network: the binary injects an implementation; the runtime says when a sandbox's network
//! namespace exists and when it goes.

use std::net::IpAddr;
use std::path::PathBuf;

/// One `hostPort` of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    pub container_port: u16,
    /// 0: no port of the host.
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

/// A sandbox, as the pod network sees it.
#[derive(Clone, Debug)]
pub struct SandboxNetwork {
    /// The sandbox's id; unique and stable across restarts of the daemon.
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Refers to the network namespace while the sandbox lives (`/proc/PID/ns/net` of its shim). On `detach` it may be
    /// gone already: the kernel has then removed the links in it.
    pub netns: PathBuf,
    pub port_mappings: Vec<PortMapping>,
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Addresses given by an earlier `attach`; empty before.
    pub ips: Vec<IpAddr>,
}

/// What went wrong in the pod network, in words for the pod's event.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// Gives sandboxes their links and addresses. Calls for different sandboxes run concurrently.
#[async_trait::async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Makes the link, addresses and routes in the sandbox's namespace. Returns its addresses, the primary one first.
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError>;
    /// Undoes `attach`. Must succeed when there is nothing left to undo.
    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError>;
    /// Called for each live sandbox when the daemon starts: re-claims its addresses and repairs what is missing.
    async fn check(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError>;
    /// Whether pods can get a network now; the text becomes the node's `NetworkNotReady` message.
    async fn ready(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// No pod network: sandboxes get a namespace with loopback only. For tests and host-network-only nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackOnly;

#[async_trait::async_trait]
impl PodNetwork for LoopbackOnly {
    async fn attach(&self, _: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(Vec::new())
    }

    async fn detach(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn check(&self, _: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(())
    }
}
