//! Bugs that hit other datastores, each by its name; `docs/reliability.md` lists them with the tests elsewhere.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use store::disk::sim::SimDisk;
use store::{Embedded, Error, Expect, Op, Options, Revision, Store, WatchItem, WatchStream};

async fn put(store: &Embedded, key: &str) -> Revision {
    let op = Op::Put { key: Arc::from(key), value: Bytes::from_static(b"v"), expect: Expect::Anything, ttl: None };
    store.write(op).await.unwrap().0
}

async fn delete(store: &Embedded, key: &str) -> Revision {
    store.write(Op::Delete { key: Arc::from(key), expect: Expect::Anything }).await.unwrap().0
}

/// Revisions with whether they were deletions, up to one.
async fn seen(stream: &mut WatchStream, upto: Revision) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        if let WatchItem::Events(events) = item.unwrap() {
            all.extend(events.iter().map(|e| (e.revision.0, e.value.is_none())));
        }
        if all.last().is_some_and(|(revision, _)| *revision >= upto.0) {
            break;
        }
    }
    all
}

/// A watch that starts before a compaction, at it, or had not read up to it, gets the deletion or is told that it cannot.
#[tokio::test]
async fn a_deletion_at_the_compacted_revision_is_not_silently_missing() {
    let disk = SimDisk::new(1);
    let store = Embedded::with_disk(Arc::new(disk.clone()), Options::default()).unwrap();
    let made = put(&store, "/a").await;
    let mut behind = store.watch("/", made).await.unwrap();
    let mut ahead = store.watch("/", made).await.unwrap();
    let gone = delete(&store, "/a").await;
    assert_eq!(seen(&mut ahead, gone).await, [(gone.0, true)]);
    store.compact(gone).await.unwrap();
    assert!(matches!(behind.next().await, Some(Err(Error::Lagged))), "it skipped the deletion");
    assert!(matches!(store.watch("/", made).await, Err(Error::Compacted { oldest }) if oldest == gone));
    let again = put(&store, "/a").await;
    // Who had read it goes on; also who starts at the compacted revision, and after a restart.
    assert_eq!(seen(&mut ahead, again).await, [(again.0, false)]);
    let mut at = store.watch("/", gone).await.unwrap();
    assert_eq!(seen(&mut at, again).await, [(again.0, false)]);
    drop(store);
    let store = Embedded::with_disk(Arc::new(disk.crash()), Options::default()).unwrap();
    assert!(matches!(store.watch("/", made).await, Err(Error::Compacted { .. })));
    assert_eq!(seen(&mut store.watch("/", gone).await.unwrap(), again).await, [(again.0, false)]);
}

/// A watch that is started ahead of the store (it saw revisions that a restored backup does not have) must not be shown older
/// ones as new.
#[tokio::test]
async fn a_watch_does_not_go_back_in_time() {
    let store = Embedded::in_memory();
    for _ in 0..5 {
        put(&store, "/a").await;
    }
    let ahead = Revision(8);
    let mut watch = store.watch("/", ahead).await.unwrap();
    let mut last = Revision(0);
    while last < Revision(10) {
        last = put(&store, "/a").await;
    }
    assert_eq!(seen(&mut watch, last).await, [(9, false), (10, false)]);
}

/// A watcher that reads nothing while history goes on gets everything in order, or an end that says so: never a gap.
#[tokio::test]
async fn a_slow_watch_gets_every_event_or_an_error() {
    for (history_bytes_max, whole) in [(64 << 20, true), (20_000, false)] {
        let store = Embedded::in_memory_with(Options { history_bytes_max, ..Options::default() });
        let mut slow = store.watch("/", Revision(1)).await.unwrap();
        let mut last = Revision(0);
        for n in 0..5000 {
            last = put(&store, &format!("/{}", n % 3)).await;
        }
        if whole {
            assert!(seen(&mut slow, last).await.iter().map(|(r, _)| *r).eq(2..=last.0));
        } else {
            assert!(matches!(slow.next().await, Some(Err(Error::Lagged))));
            assert!(slow.next().await.is_none());
        }
    }
}
