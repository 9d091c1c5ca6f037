//! The store's content in memory: the newest value of each key, the changes since the last compaction, and leases. Applies
//! records and answers for any revision that is not compacted. No I/O; `core` owns it, `snapshot` reads a copy.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::record::Record;
use crate::{Error, Event, Key, KeyValue, ListOptions, Listing, Result, Revision};

pub(crate) type Map = OrdMap<Key, Arc<KeyValue>>;

/// How many views of past revisions are kept for lists that continue.
const VIEWS_MAX: usize = 8;

/// One revision's change.
#[derive(Debug)]
pub(crate) struct Change {
    pub revision: Revision,
    pub key: Key,
    pub value: Option<Arc<KeyValue>>,
    pub previous: Option<Arc<KeyValue>>,
}

impl Change {
    pub(crate) fn event(&self) -> Event {
        Event {
            revision: self.revision,
            key: self.key.clone(),
            value: self.value.as_deref().cloned(),
            previous: self.previous.as_deref().cloned(),
        }
    }

    /// Memory that the history alone keeps for this change: the superseded value.
    fn bytes(&self) -> usize {
        256 + self.previous.as_ref().map_or(0, |p| p.value.len())
    }
}

#[derive(Clone)]
pub(crate) struct State {
    pub map: Map,
    pub revision: Revision,
    /// Reads at revisions before this one fail.
    pub compacted: Revision,
    /// The changes after `compacted` (or after revision 1), one for each revision.
    history: VecDeque<Arc<Change>>,
    pub history_bytes: usize,
    /// What the newest values take in a snapshot, about.
    pub live_bytes: usize,
    views: VecDeque<(Revision, Map)>,
    leases: Leases,
}

#[derive(Clone, Default)]
struct Leases {
    deadlines: HashMap<Key, u64>,
    order: BTreeSet<(u64, Key)>,
}

impl Leases {
    fn set(&mut self, key: &Key, deadline_ms: u64) {
        let old = match deadline_ms {
            0 => self.deadlines.remove(key),
            _ => self.deadlines.insert(key.clone(), deadline_ms),
        };
        if let Some(old) = old {
            self.order.remove(&(old, key.clone()));
        }
        if deadline_ms > 0 {
            self.order.insert((deadline_ms, key.clone()));
        }
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            map: Map::new(),
            revision: Revision(1),
            compacted: Revision(0),
            history: VecDeque::new(),
            history_bytes: 0,
            live_bytes: 0,
            views: VecDeque::new(),
            leases: Leases::default(),
        }
    }
}

fn item_bytes(item: &KeyValue) -> usize {
    64 + item.key.len() + item.value.len()
}

impl State {
    /// Applies one record. `None`: it does not follow from the state (the log is damaged).
    pub(crate) fn apply(&mut self, record: &Record) -> Option<Option<Arc<Change>>> {
        let (revision, key, value) = match record {
            Record::Put { item, deadline_ms } => {
                self.leases.set(&item.key, *deadline_ms);
                (item.mod_revision, &item.key, Some(item.clone()))
            }
            Record::Delete { key, revision } => {
                self.leases.set(key, 0);
                (*revision, key, None)
            }
            Record::Compact { revision } => {
                self.forget(*revision);
                return Some(None);
            }
            Record::Lease { key, deadline_ms } => {
                self.leases.set(key, *deadline_ms);
                return Some(None);
            }
            Record::Base { item } => {
                self.live_bytes += item_bytes(item);
                if let Some(previous) = self.map.insert(item.key.clone(), item.clone()) {
                    self.live_bytes -= item_bytes(&previous);
                }
                return Some(None);
            }
            Record::Begin { compacted, revision } => {
                self.compacted = *compacted;
                self.revision = Revision(compacted.0.max(1));
                return (compacted <= revision).then_some(None);
            }
            Record::End { .. } => return Some(None),
        };
        if revision.0 != self.revision.0 + 1 {
            return None;
        }
        let previous = match &value {
            Some(item) => self.map.insert(key.clone(), item.clone()),
            None => self.map.remove(key),
        };
        self.live_bytes += value.as_deref().map_or(0, item_bytes);
        self.live_bytes -= previous.as_deref().map_or(0, item_bytes);
        let change = Arc::new(Change { revision, key: key.clone(), value, previous });
        self.revision = revision;
        self.history_bytes += change.bytes();
        self.history.push_back(change.clone());
        Some(Some(change))
    }

    /// Forgets history before a revision; a revision outside the history is ignored.
    pub(crate) fn forget(&mut self, revision: Revision) {
        if revision <= self.compacted || revision > self.revision {
            return;
        }
        self.compacted = revision;
        while let Some(change) = self.history.pop_front_if(|c| c.revision <= revision) {
            self.history_bytes -= change.bytes();
        }
        self.views.retain(|(at, _)| *at >= revision);
    }

    /// Goes on so many revisions later; what was before is compacted.
    pub(crate) fn jump(&mut self, by: u64) {
        let revision = Revision(self.revision.0.saturating_add(by));
        self.forget(self.revision);
        self.views.clear();
        (self.revision, self.compacted) = (revision, revision);
    }

    /// Forgets the oldest history until it takes no more than `bytes_max`.
    pub(crate) fn bound_history(&mut self, bytes_max: usize) {
        while self.history_bytes > bytes_max {
            let Some(oldest) = self.history.front().map(|c| c.revision) else { return };
            self.forget(oldest);
        }
    }

    /// The changes after a revision, oldest first.
    pub(crate) fn changes_after(&self, after: Revision) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let first = self.history.front().map_or(0, |c| c.revision.0);
        let skip = usize::try_from((after.0 + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.history.range(skip.min(self.history.len())..)
    }

    /// The keys as they were at a revision.
    pub(crate) fn view(&mut self, at: Revision) -> Result<Map> {
        if at > self.revision {
            return Err(Error::Future(at));
        }
        if at < self.compacted {
            return Err(Error::Compacted { oldest: self.compacted });
        }
        if at == self.revision {
            return Ok(self.map.clone());
        }
        let near = self.views.iter().filter(|(r, _)| *r >= at).min_by_key(|(r, _)| *r);
        let (from, mut map) = near.map_or((self.revision, self.map.clone()), |(r, m)| (*r, m.clone()));
        if from > at {
            for change in self.changes_after(at).rev().filter(|c| c.revision <= from) {
                match &change.previous {
                    Some(item) => map.insert(change.key.clone(), item.clone()),
                    None => map.remove(&change.key),
                };
            }
            self.keep_view(at, &map);
        }
        Ok(map)
    }

    /// Keeps a view, so that a list can cheaply be continued.
    pub(crate) fn keep_view(&mut self, at: Revision, map: &Map) {
        if self.views.iter().any(|(r, _)| *r == at) {
            return;
        }
        if self.views.len() >= VIEWS_MAX {
            self.views.pop_front();
        }
        self.views.push_back((at, map.clone()));
    }

    /// At most `max` keys whose lease has ended, with the value they then have.
    pub(crate) fn expired(&self, now_ms: u64, max: usize) -> Vec<Arc<KeyValue>> {
        let due = self.leases.order.iter().take_while(|(at, _)| *at <= now_ms).take(max);
        due.filter_map(|(_, key)| self.map.get(key).cloned()).collect()
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.leases.order.iter().map(|(at, key)| (key, *at))
    }
}

/// The items of a map under a prefix, in key order, from after a key.
pub(crate) fn range<'a>(map: &'a Map, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Arc<KeyValue>> {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    map.range::<_, str>((from, Bound::Unbounded)).map(|(_, item)| item).take_while(move |item| item.key.starts_with(prefix))
}

/// A page of a view.
pub(crate) fn list(map: &Map, revision: Revision, prefix: &str, options: &ListOptions) -> Listing {
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut matching = range(map, prefix, options.after.as_deref());
    let items: Vec<KeyValue> = matching.by_ref().take(limit).map(|i| (**i).clone()).collect();
    let left = matching.count();
    let count = items.len() + left;
    Listing { revision, items, more: left > 0, count: count as u64 }
}
