//! Watches of the embedded engine: each is a cursor into the history plus a wake-up; nothing is copied per watcher until
//! it reads. One that falls behind the history's start ends with `Lagged`. `core` notes changes, `embedded` makes streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::state::{Change, State};
use crate::{Error, Result, Revision, WatchItem};

/// A watch reads at most so many events at once.
const EVENTS_MAX: usize = 1024;

/// One watch. Changed under the core's lock only; atomics spare a second lock.
pub(crate) struct Slot {
    prefix: Arc<str>,
    wake: Notify,
    /// The first revision not yet read that may concern this watch; 0: none.
    pending_from: AtomicU64,
    /// It has read what was there at its start, and said so.
    caught_up: AtomicBool,
}

/// All watches of one prefix.
struct Group {
    /// Nothing under the prefix changed after this.
    last_change: Revision,
    slots: Vec<Arc<Slot>>,
    woken: bool,
}

#[derive(Default)]
pub(crate) struct Watchers {
    groups: BTreeMap<Arc<str>, Group>,
    dirty: bool,
    closed: bool,
}

impl Watchers {
    /// Starts a watch of what follows `after`.
    pub(crate) fn add(&mut self, state: &State, prefix: &str, after: Revision) -> Result<Arc<Slot>> {
        if after < state.compacted {
            return Err(Error::Compacted { oldest: state.compacted });
        }
        let prefix: Arc<str> = Arc::from(prefix);
        let slot = Arc::new(Slot {
            prefix: prefix.clone(),
            wake: Notify::new(),
            pending_from: AtomicU64::new(after.0 + 1),
            caught_up: AtomicBool::new(false),
        });
        let group = self.groups.entry(prefix).or_insert_with_key(|prefix| Group {
            last_change: state
                .changes_after(after)
                .rev()
                .find(|c| c.key.starts_with(&**prefix))
                .map_or(after.min(state.revision), |c| c.revision),
            slots: Vec::new(),
            woken: false,
        });
        group.slots.push(slot.clone());
        slot.wake.notify_one();
        Ok(slot)
    }

    pub(crate) fn remove(&mut self, slot: &Arc<Slot>) {
        if let Some(group) = self.groups.get_mut(&slot.prefix) {
            group.slots.retain(|s| !Arc::ptr_eq(s, slot));
            if group.slots.is_empty() {
                self.groups.remove(&slot.prefix);
            }
        }
    }

    /// A change became durable.
    pub(crate) fn note(&mut self, change: &Change) {
        for (prefix, group) in &mut self.groups {
            if !change.key.starts_with(&**prefix) {
                continue;
            }
            group.last_change = change.revision;
            for slot in &group.slots {
                if slot.pending_from.load(Ordering::Relaxed) == 0 {
                    slot.pending_from.store(change.revision.0, Ordering::Relaxed);
                }
            }
            group.woken = true;
            self.dirty = true;
        }
    }

    /// Wakes the watches noted since the last call.
    pub(crate) fn wake(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        for group in self.groups.values_mut() {
            if std::mem::take(&mut group.woken) {
                group.slots.iter().for_each(|s| s.wake.notify_one());
            }
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.groups.values().flat_map(|g| &g.slots).for_each(|s| s.wake.notify_one());
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// `None`: nobody watches the prefix.
    pub(crate) fn last_change(&self, prefix: &str) -> Option<Revision> {
        self.groups.get(prefix).map(|g| g.last_change)
    }

    /// What a watch has not read yet: events first, then that there are no more. `None`: it must wait. An error ends it.
    pub(crate) fn read(&self, state: &State, slot: &Slot, idle: bool) -> Option<Result<WatchItem>> {
        let from = Revision(slot.pending_from.swap(0, Ordering::Relaxed));
        if self.closed {
            return Some(Err(Error::Unavailable("the store was closed".into())));
        }
        if from.0 == 0 {
            let first = !slot.caught_up.swap(true, Ordering::Relaxed);
            return (first || idle).then_some(Ok(WatchItem::Progress(state.revision)));
        }
        if from <= state.compacted {
            return Some(Err(Error::Lagged));
        }
        let after = Revision(from.0 - 1);
        let mut events = Vec::new();
        for change in state.changes_after(after).filter(|c| c.key.starts_with(&*slot.prefix)) {
            if events.len() == EVENTS_MAX {
                slot.pending_from.store(change.revision.0, Ordering::Relaxed);
                break;
            }
            events.push(change.event());
        }
        if events.is_empty() {
            // A start from the future waits for it.
            if after > state.revision {
                slot.pending_from.store(from.0, Ordering::Relaxed);
                return None;
            }
            slot.caught_up.store(true, Ordering::Relaxed);
            return Some(Ok(WatchItem::Progress(state.revision)));
        }
        Some(Ok(WatchItem::Events(events)))
    }
}

impl Slot {
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}
