//! What a failed request to etcd means: whether it can be tried again elsewhere, and what the caller is told. Texts are
//! etcd's own.

use std::error::Error as _;

use store::{Error, Revision};
use tonic::{Code, Status};

/// How one attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was done; another member, or the same one a moment later, may do it.
    Refused(String),
    /// The member could not do it in time or lost its leader; a write may have been done.
    Unsure(String),
    /// The connection is gone; a write may have been done.
    Lost(String),
    /// It would be the same everywhere.
    Final(Error),
}

pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
/// Said before anything was proposed.
const REFUSED: [&str; 5] = [
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: too many requests",
    "etcdserver: rpc not supported for learner",
    "etcdserver: not capable",
];
const UNSURE: [&str; 5] = [
    "etcdserver: request timed out",
    "etcdserver: leader changed",
    "etcdserver: server stopped",
    "etcdserver: unhealthy cluster",
    // A dropped proposal may have been sent before.
    "raft proposal dropped",
];

impl Failure {
    pub fn of(status: &Status) -> Self {
        let text = status.message();
        if status.source().is_some() {
            return Failure::Lost(innermost(status));
        }
        if REFUSED.iter().any(|t| text.starts_with(t)) {
            return Failure::Refused(text.to_owned());
        }
        if UNSURE.iter().any(|t| text.starts_with(t)) {
            return Failure::Unsure(text.to_owned());
        }
        match (text, status.code()) {
            (COMPACTED, _) => Failure::Final(Error::Compacted { oldest: Revision(0) }),
            (FUTURE, _) => Failure::Final(Error::Future(Revision(0))),
            (_, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) => Failure::Lost(text.to_owned()),
            _ => Failure::Final(Error::Cluster(text.to_owned())),
        }
    }
}

/// The cause that says most: errors of connections are wrapped many times.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_etcds_words() {
        let of = |code, text: &str| Failure::of(&Status::new(code, text));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Failure::Refused(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost"), Failure::Unsure(_)));
        assert!(matches!(of(Code::Unavailable, "transport is closing"), Failure::Lost(_)));
        assert!(matches!(of(Code::OutOfRange, COMPACTED), Failure::Final(Error::Compacted { .. })));
        assert!(matches!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), Failure::Final(Error::Cluster(_))));
    }
}
