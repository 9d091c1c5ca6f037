//! A watch: a position in a cache's ring and a filter. Nothing is copied per watcher.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use store::Revision;
use tokio::time::Instant;

use super::core::{Change, Group};
use super::interest::Slot;
use super::{Cache, Entry, Error, Interest, Result};

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

impl WatchKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
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
        self.append_json_as(out, |out| self.entry.append_json(out, self.revision));
    }

    /// The same with another form of the object.
    pub fn append_json_as(&self, out: &mut BytesMut, object: impl FnOnce(&mut BytesMut)) {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(self.kind.name().as_bytes());
        out.put_slice(b"\",\"object\":");
        object(out);
        out.put_slice(b"}\n");
    }
}

/// Some changes, perhaps none that the watcher wants to see.
pub struct Batch {
    groups: Vec<Arc<Group>>,
    after: Revision,
    /// The watcher has now seen everything up to here: what a bookmark may say.
    pub revision: Revision,
    /// The ring held more than one batch takes.
    more: bool,
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
    interest: Interest,
    slot: Arc<Slot>,
    /// Seen up to here.
    after: Revision,
    /// There may be something of interest after this; nothing before.
    pending: Option<Revision>,
    epoch: u64,
    served: Option<Instant>,
}

impl Cursor {
    pub(super) fn new(cache: Arc<Cache>, prefix: &str, interest: Interest, after: Revision, filter: Arc<dyn Filter>) -> Result<Self> {
        let (epoch, slot) = {
            let mut core = cache.lock();
            if core.closed {
                return Err(Error::Closed);
            }
            if after < core.oldest {
                return Err(Error::TooOld { wanted: after, oldest: core.oldest });
            }
            (core.epoch, core.interests.add(&interest, Revision(after.0.saturating_add(1))))
        };
        Ok(Cursor { cache, prefix: Arc::from(prefix), filter, interest, slot, after, pending: None, epoch, served: None })
    }

    /// Waits for changes. At `idle_until` (the time of the next bookmark) the answer is a batch without changes, whose revision
    /// is the newest of the whole store. An error ends the watch.
    ///
    /// Cancelling the future loses nothing.
    pub async fn next(&mut self, idle_until: Option<Instant>) -> Result<Batch> {
        loop {
            if let Some(batch) = self.read()? {
                self.coalesce(&batch).await;
                let batch = self.read()?.unwrap_or(batch);
                self.take(&batch);
                self.served = Some(Instant::now());
                return Ok(batch);
            }
            let woken = self.slot.woken.notified();
            match idle_until {
                None => woken.await,
                Some(at) => {
                    if tokio::time::timeout_at(at, woken).await.is_err() {
                        return self.bookmark().await;
                    }
                }
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
        self.cache.settle().await?;
        let batch = match self.read()? {
            Some(batch) => batch,
            None => self.batch(Vec::new(), self.after, self.after, false),
        };
        self.take(&batch);
        Ok(batch)
    }

    fn take(&mut self, batch: &Batch) {
        self.after = batch.revision;
        self.pending = batch.more.then_some(batch.revision);
    }

    /// The next changes that concern this watch; where there are none, the position moves to where the cache is.
    fn read(&mut self) -> Result<Option<Batch>> {
        loop {
            let (groups, after, revision, more) = {
                let core = self.cache.lock();
                if core.closed {
                    return Err(Error::Closed);
                }
                if core.epoch != self.epoch {
                    return Err(Error::TooOld { wanted: self.after, oldest: core.oldest });
                }
                let noted = self.slot.take().map(|r| Revision(r.0 - 1));
                self.pending = self.pending.or(noted);
                let Some(pending) = self.pending else {
                    self.after = core.revision.max(self.after);
                    return Ok(None);
                };
                let after = pending.max(self.after);
                let groups = core.groups_after(after, EVENTS_MAX)?;
                let last = groups.last().map_or(after, |g| g.last);
                let more = groups.iter().map(|g| g.changes.len()).sum::<usize>() >= EVENTS_MAX;
                (groups, after, if more { last } else { core.revision.max(after) }, more)
            };
            let batch = self.batch(groups, after, revision, more);
            if batch.events().next().is_some() {
                return Ok(Some(batch));
            }
            self.take(&batch);
        }
    }

    fn batch(&self, groups: Vec<Arc<Group>>, after: Revision, revision: Revision, more: bool) -> Batch {
        Batch { groups, after, revision, more, prefix: self.prefix.clone(), filter: self.filter.clone() }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cache.lock().interests.remove(&self.interest, &self.slot);
    }
}
