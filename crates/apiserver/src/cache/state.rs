//! The objects of a resource at one revision: a persistent map, and one over an indexed field. Cloning is cheap. Synchronous;
//! `core` changes it, a [`Snapshot`] keeps it.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use store::{Key, Revision};

use super::Entry;
use super::counts::Counts;

/// Entries by the value of a field and their key.
type Index = OrdMap<(Box<str>, Key), Arc<Entry>>;

#[derive(Clone)]
pub(super) struct State {
    map: OrdMap<Key, Arc<Entry>>,
    counts: Counts,
    /// The position of the indexed field, and its index.
    index: Option<(usize, Index)>,
}

impl State {
    pub(super) fn new(index: Option<usize>) -> Self {
        Self::of(index, std::iter::empty())
    }

    /// Filled with entries of different keys.
    pub(super) fn of(index: Option<usize>, entries: impl Iterator<Item = Arc<Entry>>) -> Self {
        let (mut map, mut index) = (OrdMap::new(), index.map(|at| (at, Index::new())));
        for entry in entries {
            if let Some((at, index)) = &mut index {
                index.insert(place(*at, &entry), entry.clone());
            }
            map.insert(entry.key.clone(), entry);
        }
        State { counts: Counts::of(&map), map, index }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.map.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn index(&self) -> Option<usize> {
        self.index.as_ref().map(|(at, _)| *at)
    }

    /// The entry that was there before.
    pub(super) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let previous = self.map.insert(entry.key.clone(), entry.clone());
        if previous.is_none() {
            self.counts.add(&entry.key, &self.map);
        }
        if let Some((at, index)) = &mut self.index {
            if let Some(previous) = &previous
                && previous.attributes.field(*at) != entry.attributes.field(*at)
            {
                index.remove(&place(*at, previous));
            }
            index.insert(place(*at, &entry), entry);
        }
        previous
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Entry>> {
        let previous = self.map.remove(key)?;
        self.counts.remove(key);
        if let Some((at, index)) = &mut self.index {
            index.remove(&place(*at, &previous));
        }
        Some(previous)
    }
}

fn place(at: usize, entry: &Entry) -> (Box<str>, Key) {
    (entry.attributes.field(at).into(), entry.key.clone())
}

/// An unchanging view of a resource at one revision.
#[derive(Clone)]
pub struct Snapshot {
    pub revision: Revision,
    pub(super) state: State,
}

impl Snapshot {
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.state.get(key)
    }

    /// The entries under a prefix in key order, from after a key.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = match after {
            Some(after) if after >= prefix && after.starts_with(prefix) => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let beyond = after.is_some_and(|after| after > prefix && !after.starts_with(prefix));
        // A prefix that ends with a slash ends where the character after it begins. Comparing each key instead reads memory
        // that a list needs for nothing else.
        let end = prefix.strip_suffix('/').map(|p| format!("{p}0"));
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let open = end.is_none();
        let entries = self.state.map.range::<_, str>((from, to));
        entries.take_while(move |(key, _)| !beyond && (!open || key.starts_with(prefix))).map(|(_, entry)| entry)
    }

    /// How many entries under a prefix that ends with a slash come after one of them.
    pub fn count_after(&self, prefix: &str, after: &Entry) -> usize {
        let end = format!("{}0", prefix.trim_end_matches('/'));
        self.state.counts.between(&after.key, &end, &self.state.map).saturating_sub(1)
    }

    /// The entries whose indexed field has a value, in key order, from after a key. None at all without an index.
    pub fn with_value<'a>(&'a self, value: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from: (Box<str>, Key) = (value.into(), after.unwrap_or_default().into());
        let index = self.state.index.iter();
        let entries = index.flat_map(move |(_, index)| index.range((Bound::Excluded(from.clone()), Bound::Unbounded)));
        entries.take_while(move |((of, _), _)| &**of == value).map(|(_, entry)| entry)
    }
}
