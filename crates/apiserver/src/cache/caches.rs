//! All caches of a server, each started when it is first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use store::{Revision, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Cache, Extract, Limits};

pub struct Caches {
    store: Arc<dyn Store>,
    limits: Limits,
    tasks: TaskTracker,
    cancel: CancellationToken,
    by_prefix: Mutex<BTreeMap<Box<str>, Started>>,
}

struct Started {
    cache: Arc<Cache>,
    cancel: CancellationToken,
}

impl Caches {
    /// Cancelling the token ends all caches.
    pub fn new(store: Arc<dyn Store>, limits: Limits, cancel: CancellationToken) -> Self {
        Caches { store, limits, tasks: TaskTracker::new(), cancel, by_prefix: Mutex::default() }
    }

    /// The cache of a prefix (`/registry/pods/`); `extract` is asked for only when it is not there yet.
    pub fn get(&self, prefix: &str, extract: impl FnOnce() -> Extract) -> Arc<Cache> {
        self.get_as(prefix, prefix, extract)
    }

    /// As [`Caches::get`], where several caches have the same prefix.
    pub fn get_as(&self, id: &str, prefix: &str, extract: impl FnOnce() -> Extract) -> Arc<Cache> {
        let mut all = self.by_prefix.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = all.get(id) {
            return started.cache.clone();
        }
        let cancel = self.cancel.child_token();
        let (cache, task) = Cache::new(self.store.clone(), prefix, extract(), self.limits, cancel.clone());
        self.tasks.spawn(task);
        all.insert(id.into(), Started { cache: cache.clone(), cancel });
        cache
    }

    /// Ends a cache: its resource is gone, or its objects are to be understood anew. Its watches end with
    /// [`super::Error::Closed`].
    pub fn remove(&self, id: &str) {
        let mut all = self.by_prefix.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = all.remove(id) {
            started.cancel.cancel();
        }
    }

    /// The store has compacted: no cache shows the state before this revision any more.
    pub fn forget_before(&self, revision: Revision) {
        let all = self.by_prefix.lock().unwrap_or_else(PoisonError::into_inner);
        for started in all.values() {
            started.cache.forget_before(revision);
        }
    }

    /// After the token was cancelled: waits until all tasks have ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
