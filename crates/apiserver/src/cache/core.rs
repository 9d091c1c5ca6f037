//! The cache's state: the newest entries, the ring of recent changes, views of the past. Synchronous; `follow` feeds it under
//! a lock.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use store::{Key, Revision};

use super::{Entry, Error, Result};

pub(super) type Map = OrdMap<Key, Arc<Entry>>;

const VIEWS_MAX: usize = 8;

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

/// An unchanging view of a resource at one revision.
#[derive(Clone)]
pub struct Snapshot {
    pub revision: Revision,
    pub(super) map: Map,
}

impl Snapshot {
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.map.get(key)
    }

    /// The entries under a prefix in key order, from after a key.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let entries = self.map.range::<_, str>((from, Bound::Unbounded));
        entries.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }
}

pub(super) struct Core {
    limits: Limits,
    map: Map,
    /// The map shows this revision.
    pub revision: Revision,
    ring: VecDeque<Arc<Group>>,
    ring_events: usize,
    ring_bytes: usize,
    /// The ring holds everything after this.
    pub oldest: Revision,
    /// Counts the times the state was read anew; cursors of earlier times end.
    pub epoch: u64,
    views: VecDeque<Snapshot>,
}

impl Core {
    pub(super) fn new(limits: Limits) -> Self {
        Core {
            limits,
            map: Map::new(),
            revision: Revision(0),
            ring: VecDeque::new(),
            ring_events: 0,
            ring_bytes: 0,
            oldest: Revision(0),
            epoch: 0,
            views: VecDeque::new(),
        }
    }

    /// Starts anew from a list; what lies between is not known.
    pub(super) fn replace(&mut self, map: Map, revision: Revision) {
        *self = Core { map, revision, oldest: revision, epoch: self.epoch + 1, ..Core::new(self.limits) };
    }

    /// Takes changes in revision order: for each the key, and the entry unless it is a deletion. Those
    /// the state already shows are skipped.
    pub(super) fn apply(&mut self, changes: Vec<(Revision, Key, Option<Arc<Entry>>)>) {
        let mut group = Group { changes: Vec::with_capacity(changes.len()), last: self.revision, bytes: 0 };
        for (revision, key, current) in changes {
            if revision <= group.last {
                continue;
            }
            let previous = match &current {
                Some(entry) => self.map.insert(key, entry.clone()),
                None => self.map.remove(&key),
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
            return;
        }
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
    }

    /// Ends all cursors.
    pub(super) fn close(&mut self) {
        self.epoch += 1;
    }

    /// Nothing changed up to a revision.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.map.get(key).cloned()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, map: self.map.clone() }
    }

    /// The groups with changes after a revision, at most `max` changes beyond the first group.
    pub(super) fn groups_after(&self, after: Revision, max: usize) -> Result<Vec<Arc<Group>>> {
        if after < self.oldest {
            return Err(Error::TooOld { wanted: after, oldest: self.oldest });
        }
        let first = self.ring.partition_point(|g| g.last <= after);
        let mut groups = Vec::new();
        let mut events = 0;
        for group in self.ring.range(first..) {
            events += group.changes.len();
            groups.push(group.clone());
            if events >= max {
                break;
            }
        }
        Ok(groups)
    }

    /// The state at a past revision, if it is kept or can be made from the ring.
    pub(super) fn view(&mut self, at: Revision) -> Option<Snapshot> {
        let near = self.views.iter().filter(|v| v.revision >= at).min_by_key(|v| v.revision).cloned();
        let mut view = near.unwrap_or_else(|| self.snapshot());
        if view.revision == at {
            return Some(view);
        }
        if at > self.revision || at < self.oldest {
            return None;
        }
        for group in self.ring.iter().rev().take_while(|g| g.last > at) {
            for change in group.changes.iter().rev().filter(|c| c.revision > at && c.revision <= view.revision) {
                match &change.previous {
                    Some(entry) => view.map.insert(entry.key.clone(), entry.clone()),
                    None => view.map.remove(change.key()),
                };
            }
        }
        view.revision = at;
        self.keep(view.clone());
        Some(view)
    }

    pub(super) fn keep(&mut self, snapshot: Snapshot) {
        if self.views.iter().any(|v| v.revision == snapshot.revision) {
            return;
        }
        if self.views.len() >= VIEWS_MAX {
            self.views.pop_front();
        }
        self.views.push_back(snapshot);
    }
}
