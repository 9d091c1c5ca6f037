//! The watch cache: per resource, the newest state and the recent changes, so that reads, lists and watches need neither the
//! store nor a copy. It knows no verbs and no HTTP; `verbs` are its callers, a `store::Store` feeds it.
//!
//! A list takes a [`Snapshot`]; a watch is a [`Cursor`] into the ring of recent changes with a [`Filter`]. Entries share their
//! bytes with the embedded store.
//!
//! - A consistent list: `consistent().await`, then `snapshot()`; one at any age: `not_older_than(given)`.
//!   A page that is not the last is `keep`t; its continuation is `snapshot_at(token's revision)`, `range(prefix, after)`.
//! - A watch from a revision: `resume(prefix, interest, revision, filter)`, which reads the store's history where the ring does not
//!   reach back so far. With initial events: a list as above, then a watch from its revision. `Cursor::next(time of the next bookmark)`; a batch without events is a bookmark at `Batch::revision`.

mod caches;
mod core;
mod counts;
mod cursor;
mod entry;
mod follow;
mod interest;
mod past;
mod spans;
mod splice;
mod state;
#[cfg(test)]
mod tests;

pub use caches::Caches;
pub use core::Limits;
pub use cursor::{Batch, Cursor, Filter, WatchEvent, WatchKind};
pub use entry::{Attributes, Encoding, Entry, Extract, Serve};
pub use follow::Cache;
pub use interest::Interest;
pub use spans::{Encoded, Form};
pub use splice::{insertion_point, members, splice};
pub use state::Snapshot;

use store::Revision;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The history needed is gone: 410 Gone, the client must list again.
    #[error("too old resource version: {} ({})", wanted.0, oldest.0)]
    TooOld { wanted: Revision, oldest: Revision },
    /// The cache did not reach the revision in time; the client may try again.
    #[error("Too large resource version: {}, current: {}", wanted.0, current.0)]
    TooLarge { wanted: Revision, current: Revision },
    /// The cache has ended: its resource or its server is going away.
    #[error("the watch cache was closed")]
    Closed,
    /// It may work when tried again.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// The store has failed and must be opened again; says why.
    #[error("{0}")]
    Failed(String),
    /// What the cluster behind the store said, in its own words.
    #[error("{0}")]
    Cluster(String),
    /// The store did not answer in time.
    #[error("{0}")]
    Timeout(String),
}

pub type Result<T> = std::result::Result<T, Error>;
