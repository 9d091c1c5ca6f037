//! Where objects live: revisions, conditional writes, prefix reads, watch, compaction, leases. The semantics are etcd's.
//!
//! Two engines stand behind [`Store`]: the embedded log engine and an etcd cluster. This crate knows keys and bytes, no
//! kinds. `apiserver` is its only caller.

pub mod backup;
mod core;
#[cfg(test)]
mod crash_tests;
pub mod disk;
mod embedded;
mod frame;
#[cfg(any(test, feature = "testing"))]
pub mod history;
mod log;
mod record;
mod recover;
mod snapshot;
mod state;
mod time;
mod watch;
mod writer;

pub use embedded::{Embedded, Options};
pub use time::Clock;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// A point in the history of the whole store. The first write makes revision 2, as in etcd; 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A key is UTF-8 text: `/registry/pods/default/web-0`.
pub type Key = Arc<str>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Key,
    pub value: Bytes,
    /// Of the write that made this value.
    pub mod_revision: Revision,
    pub create_revision: Revision,
}

/// What must hold of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    /// The key exists and was last written at this revision.
    Revision(Revision),
}

#[derive(Clone, Debug)]
pub enum Op {
    /// `ttl`: the key is deleted, with an event, when so much time has passed without another put.
    Put {
        key: Key,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    },
    Delete {
        key: Key,
        expect: Expect,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision the listing shows.
    pub revision: Revision,
    /// In key order.
    pub items: Vec<KeyValue>,
    /// There is more under the prefix after the last item.
    pub more: bool,
    /// How many keys are under the prefix from where the listing starts, those beyond the limit too.
    pub count: u64,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only keys greater than this.
    pub after: Option<String>,
    /// At most so many items; 0: all.
    pub limit: usize,
    /// The state as it was; `None`: the newest.
    pub revision: Option<Revision>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    pub key: Key,
    /// The new value; `None`: deleted.
    pub value: Option<KeyValue>,
    /// What was there before.
    pub previous: Option<KeyValue>,
}

/// What a watch yields, in revision order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// All changes of one or more revisions under the prefix.
    Events(Vec<Event>),
    /// Nothing under the prefix is outstanding up to here. Sent on request and from time to time.
    Progress(Revision),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The expectation did not hold; nothing was written. Holds what is there now.
    #[error("the key is not as expected")]
    Conflict(Option<KeyValue>),
    #[error("the required revision has been compacted; the oldest is {oldest:?}")]
    Compacted { oldest: Revision },
    #[error("revision {0:?} is in the future")]
    Future(Revision),
    /// Too slow: the watch was dropped and must be started again from a list.
    #[error("the watch fell too far behind")]
    Lagged,
    /// The disk is (nearly) full: nothing but deletions is taken until there is space again. Nothing was written.
    #[error("database space exceeded: {0}")]
    NoSpace(String),
    /// The disk failed in a write, so that nobody knows what it keeps: until the store is opened again nothing is written, and
    /// nothing is said about what is newest. Says which file, why, and what to do. Nothing was written.
    #[error("the store has failed: {0}")]
    Failed(String),
    /// The data on disk is not what was written; says which file and what to do.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The value is larger than the store takes.
    #[error("a value of {bytes} bytes is too large, at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    /// A value could not be brought into or out of the form it is stored in.
    #[error("unable to transform key {key:?}: {why}")]
    Transform { key: String, why: String },
    /// The store could not be opened; says why and what to do. Nothing was changed.
    #[error("cannot open the store: {0}")]
    Open(String),
    /// It may work when tried again; a write may or may not have happened.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// What the cluster behind the store said, in its own words; a write may or may not have happened.
    #[error("{0}")]
    Cluster(String),
    /// Nobody answered in time; says what went wrong meanwhile. A write may or may not have happened.
    #[error("context deadline exceeded ({0})")]
    Timeout(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stream of [`WatchItem`]s; dropping it ends the watch.
pub type WatchStream = futures::stream::BoxStream<'static, Result<WatchItem>>;

/// What a cache fed by a watch must have seen to be as new as the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// The newest durable revision when asked.
    pub revision: Revision,
    /// A reader that has handled every watch item of the prefix up to here misses nothing at `revision`.
    pub needed: Revision,
}

/// The datastore. Every method may be called concurrently; reads see only what is durable. Who is told that a write failed, and
/// not how, may read afterwards: what that read does not show of the write will never be there, or the read fails as well (an
/// etcd cluster may still commit what it did not answer in time).
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value, and the store's revision when it was read.
    async fn get(&self, key: &str) -> Result<(Revision, Option<KeyValue>)>;

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing>;

    /// Makes one write, durable when this returns. Answers the revision of the write.
    /// For a delete, the deleted value comes along.
    async fn write(&self, op: Op) -> Result<(Revision, Option<KeyValue>)>;

    /// Changes under a prefix after a revision (`after` itself excluded), without end. An item with an error is the last.
    /// Errors at once with `Compacted` where history does not reach back so far.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream>;

    /// The newest durable revision.
    async fn revision(&self) -> Result<Revision>;

    /// How far a watch of this prefix must have got to show the state of the newest revision. Every watch whose start lies
    /// before `needed` gets there by itself, through events or through [`WatchItem::Progress`].
    async fn freshness(&self, prefix: &str) -> Result<Freshness>;

    /// Whether watches can be relied on to say how far they are. Where they cannot (etcd before 3.4.31 and 3.5.13), a cache that
    /// must be as new as the store has to read it.
    fn tells_progress(&self) -> bool {
        true
    }

    /// Whether a value is stored in another form than it would be if it were written now. Such a value is worth writing again.
    async fn is_stale(&self, _key: &str) -> Result<bool> {
        Ok(false)
    }

    /// Forgets history before a revision.
    async fn compact(&self, revision: Revision) -> Result<()>;
}
