//! A follower of some prefixes of the store: reads them once, then every change, and hands each to a sink in order. The
//! authorizers' state hangs on these. Whoever wrote can wait until the sink has seen the write.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use store::{Key, ListOptions, Revision, Store, WatchItem};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::codec;

/// What takes the changes; `None` means deleted. `settled` follows each batch.
pub trait Sink: Send + 'static {
    fn apply(&mut self, key: &str, object: Option<&Value>);
    fn settled(&mut self);

    /// The tree of a stored object; a sink of many objects leaves out what it does not look at.
    fn decode(&self, bytes: &[u8], revision: Revision) -> Value {
        codec::decode(bytes, revision)
    }
}

/// How far a mirror has come.
#[derive(Clone)]
pub struct Progress {
    prefix: Arc<str>,
    seen: watch::Receiver<Revision>,
}

impl Progress {
    pub fn covers(&self, key: &str) -> bool {
        key.starts_with(&*self.prefix)
    }

    /// Waits until the sink has seen a write, at most a second: then it catches up later.
    pub async fn wait(&self, revision: Revision) {
        let mut seen = self.seen.clone();
        let caught_up = seen.wait_for(|r| *r >= revision);
        if tokio::time::timeout(Duration::from_secs(1), caught_up).await.is_err() {
            tracing::warn!(prefix = %self.prefix, "a mirror of the store is slow");
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
    let (sender, seen) = watch::channel(revision);
    let progress = Progress { prefix: prefix.clone(), seen };
    let task = async move {
        let mut from = revision;
        loop {
            let follow = follow(&*store, &prefix, from, &sink, &sender, &mut known);
            let ended = tokio::select! { biased;
                () = cancel.cancelled() => return,
                ended = follow => ended,
            };
            tracing::warn!(%prefix, error = %ended, "a watch of the store ended; reading again");
            tokio::time::sleep(Duration::from_millis(100)).await;
            match relist(&*store, &prefix, &sink, &mut known).await {
                Ok(revision) => {
                    from = revision;
                    sender.send_replace(revision);
                }
                Err(e) => tracing::warn!(%prefix, error = %e, "the store cannot be read"),
            }
        }
    };
    Ok((progress, task))
}

async fn relist<S: Sink>(store: &dyn Store, prefix: &str, sink: &std::sync::Mutex<S>, known: &mut HashSet<Key>) -> store::Result<Revision> {
    let listing = store.list(prefix, ListOptions::default()).await?;
    let mut sink = sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut gone = std::mem::take(known);
    for item in &listing.items {
        gone.remove(&item.key);
        let object = sink.decode(&item.value, item.mod_revision);
        sink.apply(&item.key, Some(&object));
        known.insert(item.key.clone());
    }
    for key in gone {
        sink.apply(&key, None);
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
    sender: &watch::Sender<Revision>,
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
        sender.send_if_modified(|seen| std::mem::replace(seen, reached.max(*seen)) < reached);
    }
    store::Error::Unavailable("the watch ended".to_owned())
}
