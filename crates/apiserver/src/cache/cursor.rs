//! A watch: a position in a cache's ring and a filter. Nothing is copied per watcher.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use store::Revision;

use super::core::{Change, Group};
use super::interest::Slot;
use super::past::{Part, Past};
use super::spans::{Encoded, Form, Place};
use super::{Cache, Entry, Error, Interest, Result};

/// A watcher is given at most about so many changes at once.
const EVENTS_MAX: usize = 1000;

/// Which entries a watcher wants to see.
pub trait Filter: Send + Sync + 'static {
    fn matches(&self, entry: &Entry) -> bool;

    /// It keeps nothing back.
    fn is_everything(&self) -> bool {
        false
    }
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
    place: Option<Place>,
    encoded: Option<Encoded>,
}

impl Batch {
    /// The events as another watcher has written them out. Then there are no [`Batch::events`].
    pub fn encoded(&self) -> Option<&Encoded> {
        self.encoded.as_ref()
    }

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
    /// Where the ring begins too late: what comes before.
    past: Option<Past>,
    /// In which form what is written out is shared with others.
    share: Option<Form>,
}

impl Cursor {
    /// With a past it reads that first, until it is where the ring begins.
    pub(super) fn new(
        cache: Arc<Cache>,
        prefix: &str,
        interest: Interest,
        after: Revision,
        filter: Arc<dyn Filter>,
        past: Option<Past>,
    ) -> Result<Self> {
        let (epoch, slot) = {
            let mut core = cache.lock();
            if core.closed {
                return Err(Error::Closed);
            }
            if past.is_none() && after < core.oldest {
                return Err(Error::TooOld { wanted: after, oldest: core.oldest });
            }
            (core.epoch, core.interests.add(&interest, Revision(after.0.saturating_add(1))))
        };
        Ok(Cursor { cache, prefix: Arc::from(prefix), filter, interest, slot, after, pending: None, epoch, past, share: None })
    }

    /// From now on batches may come written out in this form, which must say all: see [`Batch::encoded`].
    pub fn share(&mut self, form: Form) {
        self.share = self.filter.is_everything().then_some(form);
    }

    /// Lets others have what was written out of a batch.
    pub fn offer(&self, batch: &Batch, encoded: &Encoded) {
        if let Some((place, form)) = batch.place.zip(self.share) {
            self.cache.lock().spans.put(place, form, &self.prefix, encoded);
        }
    }

    /// The next changes, when there are some. An error ends the watch.
    ///
    /// No timer and no future of its own: a thousand watchers poll this for every event, and a timer each, set and taken back,
    /// made all of them wait for the runtime's one timer lock.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Batch>> {
        // First, so that a change between reading and this is not missed.
        self.slot.waker.register(context.waker());
        while let Some(past) = &mut self.past {
            let Poll::Ready(part) = past.poll_next(context) else {
                return if self.cache.lock().closed { Poll::Ready(Err(Error::Closed)) } else { Poll::Pending };
            };
            match part.and_then(|part| self.passed(part)) {
                Ok(Some(batch)) => return Poll::Ready(Ok(batch)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match self.read() {
            Ok(Some(batch)) => {
                self.take(&batch);
                Poll::Ready(Ok(batch))
            }
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes a part of the past. `None`: nothing of it is wanted.
    fn passed(&mut self, part: Part) -> Result<Option<Batch>> {
        let (groups, revision) = match part {
            Part::Changes(group) => (vec![group.clone()], group.last),
            Part::Quiet(revision) => (Vec::new(), revision),
        };
        let batch = Batch { groups, ..self.batch(self.after, revision.max(self.after)) };
        self.after = batch.revision;
        let core = self.cache.lock();
        if core.closed {
            return Err(Error::Closed);
        }
        if self.after >= core.oldest {
            (self.past, self.epoch) = (None, core.epoch);
        }
        drop(core);
        let wanted = batch.events().next().is_some();
        Ok(wanted.then_some(batch))
    }

    /// For the time of a bookmark: everything up to the newest revision of the whole store, which the batch then has.
    pub async fn bookmark(&mut self) -> Result<Batch> {
        if self.past.is_some() {
            return Ok(self.batch(self.after, self.after));
        }
        self.cache.settle().await?;
        let batch = match self.read()? {
            Some(batch) => batch,
            None => self.batch(self.after, self.after),
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
            let batch = {
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
                let next = core.groups_after(after, EVENTS_MAX, self.share.map(|form| (form, &*self.prefix)))?;
                let revision = if next.more { next.last } else { core.revision.max(after) };
                let batch = self.batch(after, revision);
                Batch { groups: next.groups, more: next.more, place: next.place, encoded: next.encoded, ..batch }
            };
            if batch.encoded.as_ref().is_some_and(|e| e.events > 0) || batch.events().next().is_some() {
                return Ok(Some(batch));
            }
            self.take(&batch);
        }
    }

    /// One without changes.
    fn batch(&self, after: Revision, revision: Revision) -> Batch {
        let (prefix, filter) = (self.prefix.clone(), self.filter.clone());
        Batch { groups: Vec::new(), after, revision, more: false, prefix, filter, place: None, encoded: None }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cache.lock().interests.remove(&self.interest, &self.slot);
    }
}
