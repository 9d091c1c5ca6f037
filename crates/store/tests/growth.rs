//! What the datastore takes on disk over time, on a simulated disk with a clock of its own: it stays bounded, and space comes
//! back by itself.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::disk::sim::SimDisk;
use store::{Embedded, Expect, ListOptions, Op, Options, Revision, Store};

const MIB: u64 = 1 << 20;

struct Machine {
    disk: SimDisk,
    store: Embedded,
    seconds: Arc<AtomicU64>,
    value: Bytes,
}

impl Machine {
    fn new(options: Options) -> Self {
        let seconds = Arc::new(AtomicU64::new(0));
        let disk = SimDisk::new(1);
        let now = seconds.clone();
        let clock: store::Clock = Arc::new(move || Duration::from_secs(now.load(Ordering::Relaxed)));
        let store = Embedded::with_disk(Arc::new(disk.clone()), Options { clock, ..options }).unwrap();
        Machine { disk, store, seconds, value: Bytes::from("v".repeat(4096)) }
    }

    async fn put(&self, key: &str, bytes: usize, ttl: Option<u64>) -> Revision {
        let (key, value) = (Arc::from(key), self.value.slice(..bytes));
        self.store.write(Op::Put { key, value, expect: Expect::Anything, ttl: ttl.map(Duration::from_secs) }).await.unwrap().0
    }

    fn pass(&self, seconds: u64) -> u64 {
        for _ in 0..seconds {
            self.seconds.fetch_add(1, Ordering::Relaxed);
            self.store.tick();
        }
        self.seconds.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.disk.files().values().sum()
    }
}

/// Twenty nodes with their leases, events that last an hour, pods whose status changes; compacted every five minutes as the API
/// server does.
#[tokio::test]
async fn a_day_of_a_busy_cluster_ends_with_a_bounded_file() {
    const DAY: u64 = 24 * 3600;
    let machine = Machine::new(Options { snapshot_bytes_min: 4 * MIB, ..Options::default() });
    let (mut written, mut largest, mut compact_at) = (0, [0; 24], Revision(1));
    for second in 0..DAY {
        for n in 0..2 {
            machine.put(&format!("/leases/node-{}", (second * 2 + n) % 20), 400, None).await;
        }
        machine.put(&format!("/events/{second}"), 1000, Some(3600)).await;
        let revision = machine.put(&format!("/pods/{}", second % 100), 3000, None).await;
        written += 2 * 400 + 1000 + 3000;
        if second % 300 == 299 {
            if compact_at > Revision(1) {
                machine.store.compact(compact_at).await.unwrap();
            }
            compact_at = revision;
        }
        machine.pass(1);
        let hour = &mut largest[usize::try_from(second / 3600).unwrap()];
        *hour = machine.bytes().max(*hour);
    }
    let count = machine.store.list("/", ListOptions::default()).await.unwrap().count;
    assert!((3600..3600 + 130).contains(&count), "{count} keys");
    println!("{} MiB written in a day; largest by hour, in MiB: {:?}", written / MIB, largest.map(|b| b / MIB));
    assert!(written > 350 * MIB);
    // About 5 MiB live, 3 of history, twice that before it is worth a snapshot.
    assert!(largest.iter().all(|b| *b < 32 * MIB), "{largest:?}");
    assert!(largest[12..].iter().max() <= largest[..12].iter().max(), "it still grows: {largest:?}");
}

#[tokio::test]
async fn when_nobody_compacts_history_and_files_stay_bounded() {
    let machine = Machine::new(Options { history_bytes_max: 2 << 20, snapshot_bytes_min: MIB, ..Options::default() });
    let mut largest = 0;
    for n in 0..40_000 {
        machine.put(&format!("/{}", n % 10), 1000, None).await;
        if n % 100 == 0 {
            machine.pass(1);
        }
        largest = machine.bytes().max(largest);
    }
    println!("{} MiB at most for 40 MB written to 10 keys", largest / MIB);
    assert!(largest < 12 * MIB, "{largest}");
    // What is forgotten is said.
    assert!(matches!(machine.store.watch("/", Revision(2)).await, Err(store::Error::Compacted { .. })));
}

#[tokio::test]
async fn space_is_given_back_without_being_asked_for() {
    let machine = Machine::new(Options { snapshot_bytes_min: MIB, ..Options::default() });
    for n in 0..5000 {
        machine.put(&format!("/{n}"), 4000, None).await;
    }
    machine.pass(2);
    let full = machine.bytes();
    assert!(full > 20 * 1_000_000);
    let mut last = Revision(0);
    for n in 0..4900 {
        last = machine.store.write(Op::Delete { key: Arc::from(format!("/{n}")), expect: Expect::Anything }).await.unwrap().0;
    }
    machine.store.compact(last).await.unwrap();
    // Nothing is written any more.
    machine.pass(3);
    println!("{} MiB, then {} MiB for the hundred that are left", full / MIB, machine.bytes() / MIB);
    assert!(machine.bytes() < 2 * MIB, "{} of {full} bytes are left for 0.4 MB", machine.bytes());
    let again = Embedded::with_disk(Arc::new(machine.disk.crash()), Options::default()).unwrap();
    assert_eq!(again.list("/", ListOptions::default()).await.unwrap().count, 100);
}
