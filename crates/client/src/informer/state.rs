//! The objects of one informer, their indexes, and who wants to hear of changes. Synchronous: the watch task writes,
//! everyone reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use kube::Resource;
use tokio::sync::Notify;

use super::subscription::{Queue, Subscription};
use super::{ListRequest, ObjectKey};

/// Names of the indexes that every informer has.
pub mod index_name {
    /// By the UID of the controlling owner.
    pub const CONTROLLER: &str = "metadata.controllerUID";
    /// By namespace, only objects without a controlling owner.
    pub const ORPHAN: &str = "metadata.orphan";
}

/// How far an informer has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub synced: bool,
    pub revision: u64,
    /// How many requested lists have been done.
    pub lists: u64,
}

/// A [`Progress`] that can be waited for. Waiters wake in the order in which they came; tokio's watch channel picks them at
/// random, and a simulation could not be repeated.
#[derive(Debug, Default)]
pub(crate) struct ProgressCell {
    value: Mutex<Progress>,
    changed: Notify,
}

impl ProgressCell {
    pub fn get(&self) -> Progress {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    /// Waits until the condition holds; it is asked again after each change. Cancel safe.
    pub async fn wait_for(&self, mut satisfied: impl FnMut(Progress) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if satisfied(self.get()) {
                return;
            }
            changed.await;
        }
    }
}

/// What the watch task and all handles of an informer share.
pub(crate) struct Shared<K> {
    pub path: String,
    pub progress: ProgressCell,
    pub list_request: ListRequest,
    lists_wanted: AtomicU64,
    state: RwLock<State<K>>,
}

impl<K: Resource + Send + Sync + 'static> Shared<K> {
    pub fn new(path: String) -> Self {
        Self {
            path,
            progress: ProgressCell::default(),
            list_request: ListRequest::default(),
            lists_wanted: AtomicU64::new(0),
            state: RwLock::new(State::new()),
        }
    }

    pub fn read<R>(&self, f: impl FnOnce(&State<K>) -> R) -> R {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn write<R>(&self, f: impl FnOnce(&mut State<K>) -> R) -> R {
        f(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the state equal to a list.
    pub fn replace(&self, items: Vec<K>, revision: u64, answered: u64) {
        self.write(|state| {
            let mut gone: BTreeSet<ObjectKey> = state.objects.keys().cloned().collect();
            for item in items {
                let key = ObjectKey::of(&item);
                gone.remove(&key);
                if state.objects.get(&key).is_none_or(|old| old.meta().resource_version != item.meta().resource_version) {
                    state.put(key, item);
                }
            }
            for key in gone {
                state.remove(&key, None);
            }
        });
        self.progress.update(|progress| {
            progress.synced = true;
            progress.revision = progress.revision.max(revision);
            progress.lists = progress.lists.max(answered);
        });
    }

    pub fn apply(&self, item: K) {
        let revision = revision_of(&item);
        let key = ObjectKey::of(&item);
        self.write(|state| state.put(key, item));
        self.advance(revision);
    }

    pub fn delete(&self, item: K) {
        let revision = revision_of(&item);
        let key = ObjectKey::of(&item);
        self.write(|state| state.remove(&key, Some(item)));
        self.advance(revision);
    }

    pub fn advance(&self, revision: u64) {
        if revision > self.progress.get().revision {
            self.progress.update(|progress| progress.revision = progress.revision.max(revision));
        }
    }

    pub fn subscribe(&self) -> Subscription<K> {
        let queue = Arc::new(Queue::new());
        self.write(|state| {
            for (key, object) in &state.objects {
                queue.push(key, None, Some(object));
            }
            state.subscribers.push(Arc::downgrade(&queue));
        });
        Subscription::new(queue)
    }

    /// Asks for a list that starts after this call; it is done when `progress.lists` reaches the answer.
    pub fn request_list(&self) -> u64 {
        let wanted = self.lists_wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.list_request.ask();
        wanted
    }

    /// What a list that starts now will answer.
    pub fn lists_wanted(&self) -> u64 {
        self.lists_wanted.load(Ordering::SeqCst)
    }
}

pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

type Values<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

struct Index<K> {
    name: &'static str,
    values: Values<K>,
    entries: BTreeMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

/// Objects and indexes.
pub(crate) struct State<K> {
    pub objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: Vec<Index<K>>,
    subscribers: Vec<Weak<Queue<K>>>,
}

impl<K: Resource + 'static> State<K> {
    fn new() -> Self {
        let mut state = Self { objects: BTreeMap::new(), indexes: Vec::new(), subscribers: Vec::new() };
        state.add_index(index_name::CONTROLLER, |object| controller_uid(object).map(str::to_owned).into_iter().collect());
        state.add_index(index_name::ORPHAN, |object| match controller_uid(object) {
            Some(_) => Vec::new(),
            None => vec![object.meta().namespace.clone().unwrap_or_default()],
        });
        state
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        let inside = self.objects.range(first..).take_while(|(key, _)| &*key.namespace == namespace);
        inside.map(|(_, object)| object.clone()).collect()
    }

    pub fn add_index(&mut self, name: &'static str, values: fn(&K) -> Vec<String>) {
        self.add_boxed_index(name, Box::new(values));
    }

    pub fn add_label_index(&mut self, label: &'static str) {
        let values = move |object: &K| object.meta().labels.as_ref().and_then(|labels| labels.get(label)).cloned().into_iter().collect();
        self.add_boxed_index(label, Box::new(values));
    }

    fn add_boxed_index(&mut self, name: &'static str, values: Values<K>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values, entries: BTreeMap::new() };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.push(index);
    }

    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let index = self.indexes.iter().find(|index| index.name == name);
        let keys = index.and_then(|index| index.entries.get(value)).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    fn put(&mut self, key: ObjectKey, mut object: K) {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let old = self.objects.insert(key.clone(), object.clone());
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        self.tell(&key, old.as_ref(), Some(&object));
    }

    fn remove(&mut self, key: &ObjectKey, last: Option<K>) {
        let Some(old) = self.objects.remove(key) else { return };
        for index in &mut self.indexes {
            index.remove(key, &old);
        }
        let last = last.map(Arc::new).unwrap_or(old);
        self.tell(key, Some(&last), None);
    }

    fn tell(&mut self, key: &ObjectKey, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                queue.push(key, old, new);
                true
            }
            None => false,
        });
    }
}

fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
