//! The cache's state: the newest entries, the ring of recent changes, views of the past. Synchronous; `follow` feeds it under
//! a lock.

use std::collections::VecDeque;
use std::sync::Arc;

use store::{Key, Revision};

use super::interest::{Interests, Slot};
use super::spans::{Encoded, Form, Place, Spans};
use super::state::{Snapshot, State};
use super::{Entry, Error, Result};

const VIEWS_MAX: usize = 8;
/// So many of the newest groups are looked at one by one.
const NEAR: usize = 16;

/// How much of the past a cache keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub events_max: usize,
    /// Of superseded entries.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { events_max: 50_000, bytes_max: 16 << 20 }
    }
}

/// The new and the previous version of an object; one of them is there.
#[derive(Debug)]
pub(super) struct Change {
    pub revision: Revision,
    pub current: Option<Arc<Entry>>,
    pub previous: Option<Arc<Entry>>,
}

impl Group {
    /// Changes in revision order, at least one.
    pub(super) fn new(changes: Vec<Change>) -> Self {
        Group { last: changes.last().map_or(Revision(0), |c| c.revision), bytes: changes.iter().map(Change::bytes).sum(), changes }
    }
}

impl Change {
    pub(super) fn key(&self) -> &str {
        self.current.as_ref().or(self.previous.as_ref()).map_or("", |e| &e.key)
    }

    fn bytes(&self) -> usize {
        self.previous.as_ref().map_or(0, |e| e.bytes.len() + 256)
    }
}

/// Changes that arrived together, shared by all watchers.
#[derive(Debug)]
pub(super) struct Group {
    pub changes: Vec<Change>,
    pub last: Revision,
    bytes: usize,
}

/// What comes after a revision.
pub(super) struct Next {
    pub groups: Vec<Arc<Group>>,
    pub last: Revision,
    /// The ring holds more than this.
    pub more: bool,
    /// Where it lies, if it can be shared.
    pub place: Option<Place>,
    pub encoded: Option<Encoded>,
}

pub(super) struct Core {
    limits: Limits,
    state: State,
    /// The map shows this revision.
    pub revision: Revision,
    ring: VecDeque<Arc<Group>>,
    ring_events: usize,
    ring_bytes: usize,
    /// The ring holds everything after this.
    pub oldest: Revision,
    /// Counts the times the state was read anew; cursors of earlier times end.
    pub epoch: u64,
    /// Nothing comes any more.
    pub closed: bool,
    pub interests: Interests,
    pub spans: Spans,
    views: VecDeque<Snapshot>,
    /// No view before this revision is given out.
    compacted: Revision,
}

impl Core {
    pub(super) fn new(limits: Limits, index: Option<usize>) -> Self {
        Core {
            limits,
            state: State::new(index),
            revision: Revision(0),
            ring: VecDeque::new(),
            ring_events: 0,
            ring_bytes: 0,
            oldest: Revision(0),
            epoch: 0,
            closed: false,
            interests: Interests::default(),
            spans: Spans::default(),
            views: VecDeque::new(),
            compacted: Revision(0),
        }
    }

    /// Starts anew from a list; what lies between is not known. Answers whom to wake.
    pub(super) fn replace(&mut self, state: State, revision: Revision) -> Vec<Arc<Slot>> {
        let interests = std::mem::take(&mut self.interests);
        let fresh = Core::new(self.limits, None);
        *self = Core { state, revision, oldest: revision, epoch: self.epoch + 1, interests, ..fresh };
        self.interests.everybody()
    }

    /// Takes changes in revision order: for each the key, and the entry unless it is a deletion. Those
    /// the state already shows are skipped. Answers whom to wake.
    pub(super) fn apply(&mut self, changes: Vec<(Revision, Key, Option<Arc<Entry>>)>) -> Vec<Arc<Slot>> {
        let mut woken = Vec::new();
        let mut group = Group { changes: Vec::with_capacity(changes.len()), last: self.revision, bytes: 0 };
        let shown = self.revision;
        for (revision, key, current) in changes {
            // Other writers to the same etcd may change several keys at one revision.
            if revision <= shown {
                continue;
            }
            let previous = match &current {
                Some(entry) => self.state.insert(entry.clone()),
                None => self.state.remove(&key),
            };
            group.last = revision;
            if current.is_none() && previous.is_none() {
                continue;
            }
            let change = Change { revision, current, previous };
            group.bytes += change.bytes();
            group.changes.push(change);
        }
        self.revision = self.revision.max(group.last);
        if group.changes.is_empty() {
            return woken;
        }
        self.spans.begin();
        self.interests.note(&group.changes, self.state.index(), &mut woken);
        self.ring_events += group.changes.len();
        self.ring_bytes += group.bytes;
        self.ring.push_back(Arc::new(group));
        // The newest group stays, however large, or nobody could ever see it.
        while self.ring.len() > 1 && (self.ring_events > self.limits.events_max || self.ring_bytes > self.limits.bytes_max) {
            let Some(gone) = self.ring.pop_front() else { break };
            self.ring_events -= gone.changes.len();
            self.ring_bytes -= gone.bytes;
            self.oldest = gone.last;
        }
        woken
    }

    /// Ends all cursors. Answers whom to wake.
    pub(super) fn close(&mut self) -> Vec<Arc<Slot>> {
        self.closed = true;
        self.interests.everybody()
    }

    /// Nothing changed up to a revision.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.get(key).cloned()
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.state.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, state: self.state.clone() }
    }

    /// The groups with changes after a revision, at most `max` changes beyond the first group. Where somebody has encoded just
    /// these before, that comes instead of the groups.
    pub(super) fn groups_after(&self, after: Revision, max: usize, share: Option<(Form, &str)>) -> Result<Next> {
        if after < self.oldest {
            return Err(Error::TooOld { wanted: after, oldest: self.oldest });
        }
        let first = self.first_after(after);
        let mut next = Next { groups: Vec::new(), last: after, more: false, place: None, encoded: None };
        let Some(begin) = self.ring.get(first) else { return Ok(next) };
        let (mut events, mut count) = (0, 0);
        for group in self.ring.range(first..) {
            (events, count, next.last) = (events + group.changes.len(), count + 1, group.last);
            if events >= max {
                next.more = true;
                break;
            }
        }
        // Part of a group is encoded for nobody else.
        let whole = begin.changes.first().is_some_and(|c| c.revision > after);
        next.place = begin.changes.first().filter(|_| whole).map(|c| Place { first: c.revision, last: next.last });
        next.encoded = next.place.zip(share).and_then(|(place, (form, prefix))| self.spans.get(place, form, prefix));
        if next.encoded.is_none() {
            next.groups = self.ring.range(first..first + count).cloned().collect();
        }
        Ok(next)
    }

    /// Most watchers are a few groups behind at the most; searching the whole ring would read memory nobody has at hand.
    fn first_after(&self, after: Revision) -> usize {
        let near = self.ring.iter().rev().take(NEAR + 1).take_while(|g| g.last > after).count();
        if near <= NEAR { self.ring.len() - near } else { self.ring.partition_point(|g| g.last <= after) }
    }

    /// The state at a past revision, if it is kept or can be made from the ring.
    pub(super) fn view(&mut self, at: Revision) -> Option<Snapshot> {
        let near = self.views.iter().filter(|v| v.revision >= at).min_by_key(|v| v.revision).cloned();
        let mut view = near.unwrap_or_else(|| self.snapshot());
        if view.revision == at {
            return Some(view);
        }
        if at > self.revision || at < self.oldest.max(self.compacted) {
            return None;
        }
        for group in self.ring.iter().rev().take_while(|g| g.last > at) {
            for change in group.changes.iter().rev().filter(|c| c.revision > at && c.revision <= view.revision) {
                match &change.previous {
                    Some(entry) => view.state.insert(entry.clone()),
                    None => view.state.remove(change.key()),
                };
            }
        }
        view.revision = at;
        self.keep(view.clone());
        Some(view)
    }

    pub(super) fn forget_before(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        self.views.retain(|view| view.revision >= revision);
    }

    pub(super) fn keep(&mut self, snapshot: Snapshot) {
        if snapshot.revision < self.compacted || self.views.iter().any(|v| v.revision == snapshot.revision) {
            return;
        }
        if self.views.len() >= VIEWS_MAX {
            self.views.pop_front();
        }
        self.views.push_back(snapshot);
    }
}
