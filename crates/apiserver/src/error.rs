//! What can keep the server from starting, in words for a person. Failed requests are `machinery::status::StatusError`.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}: {source}; check that the directory exists and is writable")]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not usable: {why}; remove it (and its key) to have a new one made")]
    Damaged { path: PathBuf, why: String },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("cannot listen on {address}: {source}; is another API server running there?")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    #[error("the store cannot be used: {0}")]
    Store(#[from] store::Error),
    #[error("cannot make the objects every cluster has: {0}")]
    Bootstrap(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
