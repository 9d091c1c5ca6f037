//! Who must be woken by a change: watchers by what they watch, so that a change in one namespace or on one node wakes nobody
//! who looks at another. `core` notes changes here under its lock; a `Cursor` owns one slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::task::AtomicWaker;
use store::Revision;

use super::core::Change;

/// The part of a cache that a watcher looks at. A filter may narrow it further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    All,
    /// Keys under the prefix of one namespace, which ends with a slash.
    Namespace(Box<str>),
    Key(Box<str>),
    /// Entries whose indexed field has this value.
    Value(Box<str>),
}

/// A watcher's place to be woken at.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) waker: AtomicWaker,
    /// The first change of interest that was not taken yet; 0: there is none. Changed under the core's lock only.
    pending: AtomicU64,
}

impl Slot {
    /// The first change of interest since this was last asked.
    pub(super) fn take(&self) -> Option<Revision> {
        Some(self.pending.swap(0, Ordering::Relaxed)).filter(|r| *r != 0).map(Revision)
    }
}

type ByText = BTreeMap<Box<str>, Vec<Arc<Slot>>>;

#[derive(Default)]
pub(super) struct Interests {
    all: Vec<Arc<Slot>>,
    namespaces: ByText,
    keys: ByText,
    values: ByText,
}

impl Interests {
    /// A slot that has everything from `first` on before it.
    pub(super) fn add(&mut self, interest: &Interest, first: Revision) -> Arc<Slot> {
        let slot = Arc::new(Slot { waker: AtomicWaker::new(), pending: AtomicU64::new(first.0) });
        match self.by_text(interest) {
            Some((map, text)) => map.entry(text.into()).or_default().push(slot.clone()),
            None => self.all.push(slot.clone()),
        }
        slot
    }

    pub(super) fn remove(&mut self, interest: &Interest, slot: &Arc<Slot>) {
        let drop_from = |slots: &mut Vec<Arc<Slot>>| {
            if let Some(at) = slots.iter().position(|s| Arc::ptr_eq(s, slot)) {
                slots.swap_remove(at);
            }
        };
        match self.by_text(interest) {
            None => drop_from(&mut self.all),
            Some((map, text)) => {
                if let Some(slots) = map.get_mut(text) {
                    drop_from(slots);
                    if slots.is_empty() {
                        map.remove(text);
                    }
                }
            }
        }
    }

    /// How many watchers there are of a key.
    pub(super) fn count(&self, namespace: &str, key: &str) -> usize {
        let at = |map: &ByText, text: &str| map.get(text).map_or(0, Vec::len);
        // Who looks at one value of a field is counted as if it were another's.
        self.all.len() + at(&self.namespaces, namespace) + at(&self.keys, key)
    }

    fn by_text<'a, 'b>(&'a mut self, interest: &'b Interest) -> Option<(&'a mut ByText, &'b str)> {
        match interest {
            Interest::All => None,
            Interest::Namespace(text) => Some((&mut self.namespaces, text)),
            Interest::Key(text) => Some((&mut self.keys, text)),
            Interest::Value(text) => Some((&mut self.values, text)),
        }
    }

    /// Notes changes; `woken` gets those who have to be told. `index`: the position of the indexed field.
    pub(super) fn note(&self, changes: &[Change], index: Option<usize>, woken: &mut Vec<Arc<Slot>>) {
        let Some(first) = changes.first() else { return };
        tell(&self.all, first.revision, woken);
        for change in changes {
            let key = change.key();
            if !self.namespaces.is_empty() {
                let namespace = key.rfind('/').map_or("", |slash| &key[..=slash]);
                tell_at(&self.namespaces, namespace, change.revision, woken);
            }
            if !self.keys.is_empty() {
                tell_at(&self.keys, key, change.revision, woken);
            }
            if let Some(index) = index.filter(|_| !self.values.is_empty()) {
                for entry in [&change.current, &change.previous].into_iter().flatten() {
                    tell_at(&self.values, entry.attributes.field(index), change.revision, woken);
                }
            }
        }
    }

    /// Everybody: the cache's state was replaced or ended.
    pub(super) fn everybody(&self) -> Vec<Arc<Slot>> {
        let maps = [&self.namespaces, &self.keys, &self.values];
        let texts = maps.into_iter().flat_map(|m| m.values().flatten());
        self.all.iter().chain(texts).cloned().collect()
    }
}

fn tell_at(map: &ByText, text: &str, revision: Revision, woken: &mut Vec<Arc<Slot>>) {
    if let Some(slots) = map.get(text) {
        tell(slots, revision, woken);
    }
}

fn tell(slots: &[Arc<Slot>], revision: Revision, woken: &mut Vec<Arc<Slot>>) {
    // One that was told and has not come yet need not be told again.
    let news = slots.iter().filter(|s| s.pending.compare_exchange(0, revision.0, Ordering::Relaxed, Ordering::Relaxed).is_ok());
    woken.extend(news.cloned());
}
