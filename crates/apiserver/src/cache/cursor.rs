//! A watch: a position in a cache's ring and a filter. Nothing is copied per watcher.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use store::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

use super::core::{Change, Group};
use super::{Cache, Entry, Error, Result};

/// A watcher is given at most about so many changes at once.
const EVENTS_MAX: usize = 1000;
/// A watcher that was just served waits so long for more, so that many changes become one write.
const COALESCE: Duration = Duration::from_millis(1);

/// Which entries a watcher wants to see.
pub trait Filter: Send + Sync + 'static {
    fn matches(&self, entry: &Entry) -> bool;
}

impl<F: Fn(&Entry) -> bool + Send + Sync + 'static> Filter for F {
    fn matches(&self, entry: &Entry) -> bool {
        self(entry)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    Added,
    Modified,
    Deleted,
}

/// One event as a watcher sees it.
#[derive(Clone, Copy, Debug)]
pub struct WatchEvent<'a> {
    pub kind: WatchKind,
    /// For a deletion, the object as it last matched.
    pub entry: &'a Arc<Entry>,
    /// The resourceVersion to show: that of the change.
    pub revision: Revision,
}

impl WatchEvent<'_> {
    /// Appends the event as one line of a JSON watch stream.
    pub fn append_json(&self, out: &mut BytesMut) {
        out.put_slice(match self.kind {
            WatchKind::Added => b"{\"type\":\"ADDED\",\"object\":",
            WatchKind::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            WatchKind::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        });
        self.entry.append_json(out, self.revision);
        out.put_slice(b"}\n");
    }
}

/// Some changes, perhaps none that the watcher wants to see.
pub struct Batch {
    groups: Vec<Arc<Group>>,
    after: Revision,
    /// The watcher has now seen everything up to here: what a bookmark may say.
    pub revision: Revision,
    prefix: Arc<str>,
    filter: Arc<dyn Filter>,
}

impl Batch {
    pub fn events(&self) -> impl Iterator<Item = WatchEvent<'_>> {
        let changes = self.groups.iter().flat_map(|g| &g.changes);
        changes.filter(|c| c.revision > self.after).filter_map(|c| self.event(c))
    }

    fn event<'a>(&self, change: &'a Change) -> Option<WatchEvent<'a>> {
        if !change.key().starts_with(&*self.prefix) {
            return None;
        }
        let wanted = |entry: &'a Option<Arc<Entry>>| entry.as_ref().filter(|e| self.filter.matches(e));
        let (kind, entry) = match (wanted(&change.previous), wanted(&change.current)) {
            (None, None) => return None,
            (None, Some(current)) => (WatchKind::Added, current),
            (Some(_), Some(current)) => (WatchKind::Modified, current),
            (Some(previous), None) => (WatchKind::Deleted, previous),
        };
        Some(WatchEvent { kind, entry, revision: change.revision })
    }
}

pub struct Cursor {
    cache: Arc<Cache>,
    prefix: Arc<str>,
    filter: Arc<dyn Filter>,
    after: Revision,
    epoch: u64,
    reached: watch::Receiver<Revision>,
    served: Option<Instant>,
}

impl Cursor {
    pub(super) fn new(cache: Arc<Cache>, prefix: &str, after: Revision, filter: Arc<dyn Filter>) -> Result<Self> {
        let (epoch, oldest) = {
            let core = cache.lock();
            (core.epoch, core.oldest)
        };
        if after < oldest {
            return Err(Error::TooOld { wanted: after, oldest });
        }
        let reached = cache.reached();
        Ok(Cursor { cache, prefix: Arc::from(prefix), filter, after, epoch, reached, served: None })
    }

    /// Waits for changes. At `idle_until` (the time of the next bookmark) the answer is a batch without changes, whose revision
    /// is the newest of the whole store. An error ends the watch.
    ///
    /// Cancelling the future loses nothing.
    pub async fn next(&mut self, idle_until: Option<Instant>) -> Result<Batch> {
        loop {
            // Marked as seen before reading, so that what comes between wakes again.
            self.reached.borrow_and_update();
            if let Some(batch) = self.read()? {
                self.coalesce(&batch).await;
                let batch = self.read()?.unwrap_or(batch);
                self.after = batch.revision;
                self.served = Some(Instant::now());
                return Ok(batch);
            }
            let changed = self.reached.changed();
            let woken = match idle_until {
                None => changed.await.is_ok(),
                Some(at) => match tokio::time::timeout_at(at, changed).await {
                    Ok(changed) => changed.is_ok(),
                    Err(_) => return self.bookmark().await,
                },
            };
            if !woken {
                return Err(Error::Unavailable("the cache was closed".into()));
            }
        }
    }

    /// Lets more changes gather if the last ones were handed out just now.
    async fn coalesce(&self, batch: &Batch) {
        let few = batch.groups.iter().map(|g| g.changes.len()).sum::<usize>() < EVENTS_MAX;
        if let Some(served) = self.served
            && few
            && served.elapsed() < COALESCE
        {
            tokio::time::sleep_until(served + COALESCE).await;
        }
    }

    async fn bookmark(&mut self) -> Result<Batch> {
        self.cache.consistent().await?;
        let batch = match self.read()? {
            Some(batch) => batch,
            None => self.batch(Vec::new(), self.cache.lock().revision.max(self.after)),
        };
        self.after = batch.revision;
        Ok(batch)
    }

    /// The next changes that may concern this watch.
    fn read(&mut self) -> Result<Option<Batch>> {
        let (groups, revision) = {
            let core = self.cache.lock();
            if core.epoch != self.epoch {
                return Err(Error::TooOld { wanted: self.after, oldest: core.oldest });
            }
            let groups = core.groups_after(self.after, EVENTS_MAX)?;
            let complete = groups.iter().map(|g| g.changes.len()).sum::<usize>() < EVENTS_MAX;
            let last = groups.last().map_or(self.after, |g| g.last);
            (groups, if complete { core.revision.max(self.after) } else { last })
        };
        let batch = self.batch(groups, revision);
        if batch.events().next().is_none() {
            // Nothing of interest: the position moves without waking anyone.
            self.after = revision;
            return Ok(None);
        }
        Ok(Some(batch))
    }

    fn batch(&self, groups: Vec<Arc<Group>>, revision: Revision) -> Batch {
        Batch { groups, after: self.after, revision, prefix: self.prefix.clone(), filter: self.filter.clone() }
    }
}
