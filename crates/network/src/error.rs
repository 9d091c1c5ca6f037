//! What can go wrong between us and the kernel, said with what was being done.

use std::io;
use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {doing}: {source}")]
    Netlink {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Ask again later.
    #[error("network is not ready: {0}")]
    NotReady(&'static str),
    #[error("no free address left in {0}")]
    NoFreeAddress(ipnet::IpNet),
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The kernel does not have what was named.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::Netlink { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn netlink(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Netlink { doing: doing.into(), source: source.into() }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Error::File { doing, path: path.into(), source }
    }
}
