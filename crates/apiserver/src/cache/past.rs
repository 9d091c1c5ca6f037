//! What a watcher missed before the ring of a cache begins, from the store's own history: after a restart the ring is empty,
//! but the store forgets nothing that is not compacted. A `Cursor` reads this until it is where the ring begins.
//!
//! Each such watcher has a watch of the store of its own, for the moment that takes: nothing is read at a start, nothing kept
//! in memory, and a slow reader slows nobody down.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use store::{Revision, WatchItem};

use super::core::{Change, Group};
use super::follow::too_old;
use super::{Cache, Entry, Error, Result};

/// The next part of what was missed.
pub(super) enum Part {
    Changes(Arc<Group>),
    /// Nothing happened up to here.
    Quiet(Revision),
}

pub(super) struct Past(BoxStream<'static, Result<Part>>);

impl Past {
    /// Everything under a prefix after a revision, without end. `TooOld` where the store has forgotten some of it.
    pub(super) async fn open(cache: Arc<Cache>, prefix: &str, after: Revision) -> Result<Self> {
        let stream = cache.store().watch(prefix, after).await.map_err(|e| too_old(e, after))?;
        if cache.store().tells_progress() {
            // Has etcd say soon that nothing more is outstanding, where nothing is.
            cache.store().freshness(prefix).await.map_err(|e| too_old(e, after))?;
        }
        let parts = stream.then(move |item| {
            let cache = cache.clone();
            async move { part(&cache, item.map_err(|e| too_old(e, after))?).await }
        });
        Ok(Past(parts.boxed()))
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Part>> {
        let ended = || Err(Error::Unavailable("the watch ended".into()));
        self.0.poll_next_unpin(context).map(|part| part.unwrap_or_else(ended))
    }
}

async fn part(cache: &Cache, item: WatchItem) -> Result<Part> {
    let events = match item {
        WatchItem::Progress(revision) => return Ok(Part::Quiet(revision)),
        WatchItem::Events(events) => events,
    };
    let values = |of: fn(&store::Event) -> Option<store::KeyValue>| events.iter().filter_map(of).collect();
    let mut current = cache.entries_of(values(|e| e.value.clone())).await?.into_iter();
    let mut previous = cache.entries_of(values(|e| e.previous.clone())).await?.into_iter();
    let next = |there: bool, from: &mut std::vec::IntoIter<Arc<Entry>>| there.then(|| from.next()).flatten();
    let changes = events.iter().map(|e| Change {
        revision: e.revision,
        current: next(e.value.is_some(), &mut current),
        previous: next(e.previous.is_some(), &mut previous),
    });
    Ok(Part::Changes(Arc::new(Group::new(changes.collect()))))
}
