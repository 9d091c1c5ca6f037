//! How to reach an etcd cluster: upstream's `--etcd-*` flags.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone)]
pub struct Options {
    /// `http://host:port` or `https://host:port`; at least one.
    pub servers: Vec<String>,
    /// PEM of the authorities that sign etcd's certificates; none: those of nobody.
    pub ca_file: Option<PathBuf>,
    /// PEM of the client's certificate and key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// What all keys begin with; upstream's default is `/registry`.
    pub prefix: String,
    /// How long a request may take in all, with every further attempt.
    pub deadline: Duration,
    /// How long a read may take before another endpoint is asked as well.
    pub attempt: Duration,
    /// Whether to ask members how far watches are. `None`: those whose version can be relied on (upstream's rule).
    pub ask_progress: Option<bool>,
    /// How long connecting to one endpoint may take.
    pub connect: Duration,
}

impl Options {
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            prefix: "/registry".to_owned(),
            // etcd gives up on a proposal after seven seconds and says so; that text is better than ours.
            deadline: Duration::from_secs(10),
            ask_progress: None,
            attempt: Duration::from_secs(2),
            connect: Duration::from_secs(2),
        }
    }
}
