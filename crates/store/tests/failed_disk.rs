//! What the embedded engine says after a write that failed: nothing that a restart takes back. Who is told of a failure reads,
//! to learn whether it was done, and acts on the answer.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::disk::sim::{Faults, SimDisk};
use store::{Embedded, Error, Expect, ListOptions, Op, Options, Revision, Store, WatchItem};

fn put(key: &str, value: &str) -> Op {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Op::Put { key: Arc::from(key), value, expect: Expect::Anything, ttl: None }
}

fn open(disk: &SimDisk) -> Embedded {
    let options = Options { seed: 1, free_bytes_min: 0, ..Options::default() };
    Embedded::with_disk(Arc::new(disk.clone()), options).unwrap()
}

async fn keys(store: &Embedded) -> Result<Vec<String>, Error> {
    Ok(store.list("/", ListOptions::default()).await?.items.iter().map(|item| item.key.to_string()).collect())
}

/// A write that fails, what is then read, and what is there after the power failed: `None` where the read fails.
async fn fails_and_reads(seed: u64, faults: Faults) -> Option<(Option<Vec<String>>, Vec<String>)> {
    let disk = SimDisk::new(seed);
    let store = open(&disk);
    store.write(put("/a", "1")).await.unwrap();
    disk.set_faults(faults);
    store.write(put("/b", "2")).await.err()?;
    let read = keys(&store).await.ok();
    assert_eq!(store.get("/b").await.is_ok(), read.is_some(), "a get knows no more than a list");
    assert_eq!(store.revision().await.is_ok(), read.is_some(), "nor does the revision");
    assert_eq!(store.freshness("/").await.is_ok(), read.is_some(), "nor do caches");
    Some((read, keys(&open(&disk.crash())).await.unwrap()))
}

#[tokio::test]
async fn what_is_read_after_a_failed_write_holds_after_a_restart() {
    let (mut refused, mut answered, mut done) = (0, 0, 0);
    for seed in 0..40 {
        let at = Some(seed % 2);
        let kinds = [
            Faults { die_at: at, ..Faults::default() },
            Faults { fail_at: at, ..Faults::default() },
            Faults { fail_sync: Some(0), ..Faults::default() },
            Faults { read_only: true, ..Faults::default() },
            Faults { free_bytes: Some(seed), ..Faults::default() },
        ];
        for faults in kinds {
            let text = format!("seed {seed}, {faults:?}");
            let Some((read, after)) = fails_and_reads(seed, faults.clone()).await else { panic!("{text}: the write does not fail") };
            // Of a full disk it is known that nothing remains.
            assert_eq!(read.is_some(), faults.free_bytes.is_some(), "{text}");
            done += usize::from(after.len() == 2);
            match read {
                Some(read) => {
                    answered += 1;
                    assert_eq!(read, after, "{text}");
                }
                None => refused += 1,
            }
        }
    }
    assert!(done > 10 && answered == 40 && refused == 160, "{done} done, {answered} answered, {refused} refused");
}

#[tokio::test]
async fn a_failed_engine_says_what_failed_and_still_knows_the_past() {
    let disk = SimDisk::new(3);
    let store = open(&disk);
    store.write(put("/a", "1")).await.unwrap();
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(10), store.failed()).await;
    assert!(early.is_err(), "it has not failed yet");
    disk.set_faults(Faults { fail_at: Some(0), ..Faults::default() });
    let Err(Error::Unavailable(why)) = store.write(put("/b", "2")).await else { panic!("the outcome is not known") };
    assert!(why.starts_with("writing to sim/log-") && why.contains("failed: ") && why.contains("restart"), "{why}");
    assert_eq!(store.failed().await, why);
    let Err(Error::Failed(again)) = store.get("/a").await else { panic!("it claims to know what is newest") };
    assert_eq!(again, why);
    assert!(matches!(store.write(put("/c", "3")).await, Err(Error::Failed(_))), "nothing was done");
    // What was acknowledged before has its revision.
    let past = ListOptions { revision: Some(Revision(2)), ..ListOptions::default() };
    assert_eq!(store.list("/", past).await.unwrap().items.len(), 1);
    let Some(Ok(WatchItem::Events(events))) = futures::StreamExt::next(&mut watch).await else { panic!() };
    assert_eq!(events.len(), 1);
}
