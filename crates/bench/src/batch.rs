//! What durability costs: the bytes and syncs of a batch at several loads, and of the writes of a busy hour. Through a disk that
//! counts, on the engine itself: the server adds nothing to what is written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use store::disk::real::RealDisk;
use store::disk::{Disk, DiskFile, SyncPoint};
use store::{Embedded, Expect, Key, Op, Revision, Store};
use tokio::task::JoinSet;

use crate::server::data_dir;

#[derive(Default)]
struct Counts {
    /// Given to the file system.
    bytes: AtomicU64,
    batches: AtomicU64,
    /// Of segments, snapshots and the directory.
    other_syncs: AtomicU64,
}

impl Counts {
    fn note(&self, point: SyncPoint) {
        let count = if point == SyncPoint::Batch { &self.batches } else { &self.other_syncs };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> [u64; 3] {
        [&self.bytes, &self.batches, &self.other_syncs].map(|n| n.load(Ordering::Relaxed))
    }
}

/// A disk that counts what goes to another one.
struct Counted<T> {
    inner: T,
    counts: Arc<Counts>,
}

impl Disk for Counted<RealDisk> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.inner.read(name, offset, max)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Counted { inner: self.inner.create(name)?, counts: self.counts.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self, point: SyncPoint) -> io::Result<()> {
        self.counts.note(point);
        self.inner.sync_dir(point)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn describe(&self, name: &str) -> String {
        self.inner.describe(name)
    }
}

impl DiskFile for Counted<Box<dyn DiskFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.counts.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.inner.append(bytes)
    }

    fn sync(&mut self, point: SyncPoint) -> io::Result<()> {
        self.counts.note(point);
        self.inner.sync(point)
    }
}

pub async fn run(options: &crate::Options) -> Result<()> {
    let (dir, _temporary) = data_dir(options)?;
    let counts = Arc::new(Counts::default());
    let open = |name: &str| -> Result<Arc<Embedded>> {
        let disk = Counted { inner: RealDisk::open(&dir.join(name))?, counts: counts.clone() };
        Ok(Arc::new(Embedded::with_disk_and_thread(Arc::new(disk), store::Options::default())?))
    };
    let store = open("batches")?;
    println!(
        "{:>7} {:>10} {:>10} {:>13} {:>13} {:>12} {:>11}",
        "writers", "writes/s", "syncs/s", "writes/batch", "bytes/batch", "bytes/write", "of value"
    );
    for writers in [1, 8, options.connections, 256] {
        batches(&store, &counts, writers, options.duration()).await?;
    }
    drop(store);
    hour(&*open("hour")?, &counts).await
}

const VALUE_BYTES: usize = 1024;

async fn batches(store: &Arc<Embedded>, counts: &Counts, writers: usize, time: Duration) -> Result<()> {
    let (before, begin) = (counts.now(), Instant::now());
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut written = 0_u64;
            while begin.elapsed() < time {
                store.write(put(format!("/registry/configmaps/bench/{writer}-{}", written % 100), VALUE_BYTES)).await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut writes = 0;
    while let Some(ended) = tasks.join_next().await {
        writes += ended??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let [bytes, batches, _] = std::array::from_fn(|i| counts.now()[i] - before[i]);
    let per = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    println!(
        "{writers:>7} {:>10.0} {:>10.0} {:>13.1} {:>13.0} {:>12.0} {:>10.2}x",
        writes as f64 / seconds,
        batches as f64 / seconds,
        per(writes, batches),
        per(bytes, batches),
        per(bytes, writes),
        per(bytes, writes * VALUE_BYTES as u64),
    );
    Ok(())
}

fn put(key: String, bytes: usize) -> Op {
    let key: Key = key.into();
    Op::Put { key, value: Bytes::from(vec![b'x'; bytes]), expect: Expect::Anything, ttl: None }
}

/// Something that is written all the time.
struct Habit {
    what: &'static str,
    objects: u64,
    bytes: usize,
    every_seconds: u64,
}

/// A hundred nodes and three thousand pods, of which one is replaced each second.
const HABITS: [Habit; 7] = [
    Habit { what: "leases/nodes", objects: 100, bytes: 450, every_seconds: 10 },
    Habit { what: "leases/leaders", objects: 3, bytes: 500, every_seconds: 2 },
    Habit { what: "minions", objects: 100, bytes: 6000, every_seconds: 300 },
    Habit { what: "pods", objects: 3000, bytes: 3400, every_seconds: 600 },
    Habit { what: "events", objects: 3000, bytes: 900, every_seconds: 600 },
    Habit { what: "endpointslices", objects: 200, bytes: 4000, every_seconds: 100 },
    Habit { what: "replicasets", objects: 300, bytes: 2500, every_seconds: 300 },
];
const HOUR_SECONDS: u64 = 3600;
const COMPACTION_SECONDS: u64 = 300;

/// The writes of an hour one after the other, each in a batch of its own: that is the dearest way to make them.
async fn hour(store: &dyn Store, counts: &Counts) -> Result<()> {
    let (before, begin) = (counts.now(), Instant::now());
    let (mut writes, mut value_bytes, mut earlier) = (0_u64, 0_u64, Revision(0));
    for second in 0..HOUR_SECONDS {
        for Habit { what, objects, bytes, every_seconds } in &HABITS {
            // Each in its own second of the interval.
            for object in (0..*objects).filter(|object| object % every_seconds == second % every_seconds) {
                store.write(put(format!("/registry/{what}/bench/{object}"), *bytes)).await?;
                writes += 1;
                value_bytes += *bytes as u64;
            }
        }
        if second % COMPACTION_SECONDS == COMPACTION_SECONDS - 1 {
            // As the server does it: what was before the last time.
            if earlier > Revision(0) {
                store.compact(earlier).await?;
            }
            earlier = store.revision().await?;
        }
    }
    let [bytes, batches, other] = std::array::from_fn(|i| counts.now()[i] - before[i]);
    println!(
        "\na busy hour in {:.0} s: {writes} writes ({:.1} a second) of {:.1} MiB, in {batches} batches\n\
         {:.1} MiB to the file system ({:.2} times the values), {} syncs of batches, {other} others",
        begin.elapsed().as_secs_f64(),
        writes as f64 / HOUR_SECONDS as f64,
        mib(value_bytes),
        mib(bytes),
        bytes as f64 / value_bytes.max(1) as f64,
        batches,
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
