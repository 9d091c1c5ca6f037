//! Which prefixes are watched, and how far somebody wants their watches to say they are. A watch that is wanted to be
//! further than it is asks etcd until it is told so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use store::Revision;
use tokio::sync::watch;

#[derive(Default)]
pub struct Watching(Mutex<HashMap<Arc<str>, Weak<Wanted>>>);

/// Of one prefix, shared by its watches.
pub struct Wanted(watch::Sender<Revision>);

impl Watching {
    pub fn join(&self, prefix: &str) -> Arc<Wanted> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, wanted| wanted.strong_count() > 0);
        if let Some(wanted) = all.get(prefix).and_then(Weak::upgrade) {
            return wanted;
        }
        let wanted = Arc::new(Wanted(watch::Sender::new(Revision(0))));
        all.insert(prefix.into(), Arc::downgrade(&wanted));
        wanted
    }

    /// Somebody waits for the watches of a prefix to be known to show this revision.
    pub fn want(&self, prefix: &str, revision: Revision) {
        let wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(prefix).and_then(Weak::upgrade);
        if let Some(wanted) = wanted {
            wanted.0.send_if_modified(|known| std::mem::replace(known, revision.max(*known)) < revision);
        }
    }
}

impl Wanted {
    pub fn follow(&self) -> watch::Receiver<Revision> {
        self.0.subscribe()
    }
}
