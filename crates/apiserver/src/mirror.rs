//! A follower of some prefixes of the store: reads them once, then every change, and hands each to a sink in order. The
//! authorizers' state hangs on these. Whoever wrote can wait until the sink has seen the write.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use store::{Key, ListOptions, Revision, Store, WatchItem};
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::reached::{Listener, Teller};

/// What takes the changes; `None` means deleted. `settled` follows each batch.
pub trait Sink: Send + 'static {
    fn apply(&mut self, key: &str, object: Option<&Value>);
    fn settled(&mut self);

    /// Whether a stored object is to the sink what it was before: then it is not told.
    fn is_same(&self, _before: &[u8], _now: &[u8]) -> bool {
        false
    }

    /// The tree of a stored object; a sink of many objects leaves out what it does not look at.
    fn decode(&self, bytes: &[u8], revision: Revision) -> Value {
        codec::decode(bytes, revision)
    }
}

/// So many objects are taken before others on the thread have their turn.
const TAKEN_AT_ONCE: usize = 200;

/// How far a mirror has come.
#[derive(Clone)]
pub struct Progress {
    prefix: Arc<str>,
    seen: Listener,
}

impl Progress {
    fn covers(&self, key: &str) -> bool {
        key.starts_with(&*self.prefix)
    }

    /// Waits until the sink has seen what there was at the start.
    pub async fn read(&self) {
        if !self.seen.reach(Revision(1)).await {
            tracing::warn!(prefix = %self.prefix, "a mirror of the store has ended");
        }
    }

    /// Waits until the sink has seen something that this copy did not know of.
    pub async fn changed(&mut self) {
        if !self.seen.changed().await {
            // The mirror has ended with its server.
            std::future::pending().await
        }
    }

    /// Waits until the sink has seen a write, at most a second: then it catches up later.
    pub async fn wait(&self, revision: Revision) {
        let caught_up = self.seen.reach(revision);
        if tokio::time::timeout(Duration::from_secs(1), caught_up).await.is_err() {
            tracing::warn!(prefix = %self.prefix, "a mirror of the store is slow");
        }
    }
}

/// After a write: waits for those mirrors that it is about.
pub async fn caught_up(mirrors: impl IntoIterator<Item = &Progress>, key: &str, revision: Revision) {
    for progress in mirrors {
        if progress.covers(key) {
            progress.wait(revision).await;
        }
    }
}

/// Reads the prefix and returns the task that follows it from then on.
pub async fn start<S: Sink>(
    store: Arc<dyn Store>,
    prefix: String,
    sink: Arc<std::sync::Mutex<S>>,
    cancel: CancellationToken,
) -> store::Result<(Progress, impl Future<Output = ()> + Send + 'static)> {
    let prefix: Arc<str> = prefix.into();
    let mut known = HashSet::new();
    let revision = relist(&*store, &prefix, &sink, &mut known).await?;
    Ok(keep(store, prefix, sink, cancel, known, Some(revision)))
}

/// As [`start`], but the task reads the prefix as well: until it has, [`Progress::read`] waits.
pub fn start_later<S: Sink>(
    store: Arc<dyn Store>,
    prefix: String,
    sink: Arc<std::sync::Mutex<S>>,
    cancel: CancellationToken,
) -> (Progress, impl Future<Output = ()> + Send + 'static) {
    keep(store, prefix.into(), sink, cancel, HashSet::new(), None)
}

fn keep<S: Sink>(
    store: Arc<dyn Store>,
    prefix: Arc<str>,
    sink: Arc<std::sync::Mutex<S>>,
    cancel: CancellationToken,
    mut known: HashSet<Key>,
    mut from: Option<Revision>,
) -> (Progress, impl Future<Output = ()> + Send + 'static) {
    let teller = Teller::new(from.unwrap_or(Revision(0)));
    let progress = Progress { prefix: prefix.clone(), seen: teller.listen() };
    let task = async move {
        loop {
            let Some(revision) = from else {
                let read = tokio::select! { biased;
                    () = cancel.cancelled() => return,
                    read = relist(&*store, &prefix, &sink, &mut known) => read,
                };
                match read {
                    Ok(revision) => {
                        from = Some(revision);
                        // Where nothing was ever written, that has been read, too.
                        teller.tell(revision.max(Revision(1)));
                    }
                    Err(e) => {
                        tracing::warn!(%prefix, error = %e, "the store cannot be read");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                continue;
            };
            let follow = follow(&*store, &prefix, revision, &sink, &teller, &mut known);
            let ended = tokio::select! { biased;
                () = cancel.cancelled() => return,
                ended = follow => ended,
            };
            tracing::warn!(%prefix, error = %ended, "a watch of the store ended; reading again");
            tokio::time::sleep(Duration::from_millis(100)).await;
            from = None;
        }
    };
    (progress, task)
}

async fn relist<S: Sink>(store: &dyn Store, prefix: &str, sink: &std::sync::Mutex<S>, known: &mut HashSet<Key>) -> store::Result<Revision> {
    let listing = store.list(prefix, ListOptions::default()).await?;
    let lock = || sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut now = HashSet::with_capacity(listing.items.len());
    for items in listing.items.chunks(TAKEN_AT_ONCE) {
        {
            let mut sink = lock();
            for item in items {
                let object = sink.decode(&item.value, item.mod_revision);
                sink.apply(&item.key, Some(&object));
                now.insert(item.key.clone());
            }
        }
        tokio::task::yield_now().await;
    }
    let mut sink = lock();
    for key in std::mem::replace(known, now) {
        if !known.contains(&key) {
            sink.apply(&key, None);
        }
    }
    sink.settled();
    Ok(listing.revision)
}

/// Follows until the watch ends; says why it did.
async fn follow<S: Sink>(
    store: &dyn Store,
    prefix: &str,
    from: Revision,
    sink: &std::sync::Mutex<S>,
    teller: &Teller,
    known: &mut HashSet<Key>,
) -> store::Error {
    let mut stream = match store.watch(prefix, from).await {
        Ok(stream) => stream,
        Err(e) => return e,
    };
    while let Some(item) = stream.next().await {
        let reached = match item {
            Err(e) => return e,
            Ok(WatchItem::Progress(revision)) => revision,
            Ok(WatchItem::Events(events)) => {
                let mut sink = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for event in &events {
                    if let (Some(before), Some(now)) = (&event.previous, &event.value)
                        && known.contains(&event.key)
                        && sink.is_same(&before.value, &now.value)
                    {
                        continue;
                    }
                    let object = event.value.as_ref().map(|v| sink.decode(&v.value, event.revision));
                    sink.apply(&event.key, object.as_ref());
                    if object.is_some() {
                        known.insert(event.key.clone())
                    } else {
                        known.remove(&event.key)
                    };
                }
                sink.settled();
                events.last().map_or(from, |e| e.revision)
            }
        };
        teller.tell(reached);
    }
    store::Error::Unavailable("the watch ended".to_owned())
}
