//! How every component reaches the API: a `kube::Client` in process or over HTTPS, shared informers, events and leader
//! election.
//!
//! It decides nothing and knows no resource by name. The scheduler, the kubelet, the network and the controllers call
//! it; the composition root makes the clients.

mod connect;
mod events;
mod informer;
mod leader_election;
pub mod metrics;
mod time;

pub use connect::{from_kubeconfig, from_kubeconfig_metered, from_kubeconfig_named, in_process, in_process_as, in_process_named};
pub use events::{EventRecorder, EventType, Happening};
pub use informer::{Change, Informer, Informers, ObjectKey, Scope, Subscription, Watchable, index_name};
pub use kube::Client;
pub use leader_election::{Election, Leadership};
pub use telemetry::metrics::Registry;
pub use time::{Clock, Entropy};

/// What can go wrong in making or using a client. Failed requests are retried inside informers and recorders.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read or does not say how to reach a cluster.
    #[error("kubeconfig {path}: {source}; is this the file that `skiff up` wrote, or KUBECONFIG?")]
    Kubeconfig { path: String, source: kube::config::KubeconfigError },
    /// The TLS material does not make a client.
    #[error("client for {path}: {source}")]
    Client { path: String, source: Box<kube::Error> },
    /// The API server answered with an error that will not go away by itself.
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
