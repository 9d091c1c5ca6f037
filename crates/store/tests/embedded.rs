//! The embedded engine through its public interface: etcd's semantics on every kind of engine, restarts, clear errors.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::disk::SyncPoint;
use store::disk::sim::{Call, Faults, SimDisk};
use store::{Embedded, Error, Expect, KeyValue, ListOptions, Op, Options, Revision, Store, WatchItem, WatchStream};

fn put(key: &str, value: &str, expect: Expect) -> Op {
    Op::Put { key: Arc::from(key), value: Bytes::copy_from_slice(value.as_bytes()), expect, ttl: None }
}

fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { key: Arc::from(key), expect }
}

fn leased(key: &str, ttl_s: u64) -> Op {
    let ttl = Some(Duration::from_secs(ttl_s));
    Op::Put { key: Arc::from(key), value: Bytes::from_static(b"v"), expect: Expect::Anything, ttl }
}

fn show(items: &[KeyValue]) -> Vec<String> {
    items.iter().map(|i| format!("{}={}@{}", i.key, std::str::from_utf8(&i.value).unwrap(), i.mod_revision.0)).collect()
}

async fn at(store: &dyn Store, revision: u64) -> Vec<String> {
    let options = ListOptions { revision: Some(Revision(revision)), ..ListOptions::default() };
    show(&store.list("/", options).await.unwrap().items)
}

/// Reads a watch up to a revision; each event as text.
async fn events(stream: &mut WatchStream, upto: u64) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match stream.next().await.unwrap().unwrap() {
            WatchItem::Progress(r) if r.0 >= upto => return seen,
            WatchItem::Progress(_) => {}
            WatchItem::Events(events) => {
                for e in &events {
                    let text = |i: &Option<KeyValue>| i.as_ref().map_or("-".into(), |i| show(std::slice::from_ref(i))[0].clone());
                    seen.push(format!("{}: {} -> {}", e.revision.0, text(&e.previous), text(&e.value)));
                }
                if events.last().unwrap().revision.0 >= upto {
                    return seen;
                }
            }
        }
    }
}

async fn semantics(store: &dyn Store) {
    assert_eq!(store.revision().await.unwrap(), Revision(1));
    assert_eq!(store.write(put("/a/1", "x", Expect::Absent)).await.unwrap(), (Revision(2), None));
    assert_eq!(store.write(put("/a/2", "y", Expect::Anything)).await.unwrap(), (Revision(3), None));
    let Err(Error::Conflict(Some(there))) = store.write(put("/a/1", "z", Expect::Absent)).await else { panic!() };
    assert_eq!(show(&[there]), ["/a/1=x@2"]);
    assert!(matches!(store.write(put("/a/1", "z", Expect::Revision(Revision(3)))).await, Err(Error::Conflict(Some(_)))));
    assert!(matches!(store.write(put("/a/3", "z", Expect::Revision(Revision(3)))).await, Err(Error::Conflict(None))));
    assert_eq!(store.write(put("/a/1", "z", Expect::Revision(Revision(2)))).await.unwrap().0, Revision(4));
    let (revision, gone) = store.write(delete("/a/2", Expect::Revision(Revision(3)))).await.unwrap();
    assert_eq!((revision, show(&[gone.unwrap()])), (Revision(5), vec!["/a/2=y@3".to_owned()]));
    assert_eq!(store.write(delete("/a/2", Expect::Anything)).await.unwrap(), (Revision(5), None), "nothing to delete");
    assert_eq!(store.write(put("/b", "w", Expect::Anything)).await.unwrap().0, Revision(6));

    let (revision, item) = store.get("/a/1").await.unwrap();
    let item = item.unwrap();
    assert_eq!((revision, item.create_revision, item.mod_revision), (Revision(6), Revision(2), Revision(4)));
    let none: [&str; 0] = [];
    assert_eq!(at(store, 1).await, none);
    assert_eq!(at(store, 3).await, ["/a/1=x@2", "/a/2=y@3"]);
    assert_eq!(at(store, 5).await, ["/a/1=z@4"]);
    assert!(matches!(store.list("/", ListOptions { revision: Some(Revision(7)), ..Default::default() }).await, Err(Error::Future(_))));

    let mut watch = store.watch("/a/", Revision(2)).await.unwrap();
    assert_eq!(events(&mut watch, 6).await, ["3: - -> /a/2=y@3", "4: /a/1=x@2 -> /a/1=z@4", "5: /a/2=y@3 -> -"]);
    let freshness = store.freshness("/a/").await.unwrap();
    assert_eq!((freshness.revision, freshness.needed <= Revision(6)), (Revision(6), true));

    store.compact(Revision(4)).await.unwrap();
    assert!(matches!(store.compact(Revision(4)).await, Err(Error::Compacted { oldest: Revision(4) })));
    assert!(matches!(store.compact(Revision(7)).await, Err(Error::Future(_))));
    assert_eq!(at(store, 4).await, ["/a/1=z@4", "/a/2=y@3"]);
    let old = ListOptions { revision: Some(Revision(3)), ..Default::default() };
    assert!(matches!(store.list("/", old).await, Err(Error::Compacted { oldest: Revision(4) })));
    assert!(matches!(store.watch("/", Revision(3)).await, Err(Error::Compacted { .. })));
    let mut watch = store.watch("/", Revision(4)).await.unwrap();
    assert_eq!(events(&mut watch, 6).await, ["5: /a/2=y@3 -> -", "6: - -> /b=w@6"]);
}

#[tokio::test]
async fn semantics_are_the_same_on_every_engine() {
    semantics(&Embedded::in_memory()).await;
    semantics(&Embedded::with_disk(Arc::new(SimDisk::new(1)), Options::default()).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    semantics(&Embedded::open(dir.path(), Options::default()).unwrap()).await;
}

#[tokio::test]
async fn pages_continue_at_their_revision() {
    let store = Embedded::in_memory();
    for n in 0..10 {
        store.write(put(&format!("/p/{n}"), "old", Expect::Absent)).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut options = ListOptions { limit: 3, ..Default::default() };
    loop {
        let page = store.list("/p/", options.clone()).await.unwrap();
        assert_eq!((page.revision, page.count), (Revision(11), 10 - seen.len() as u64));
        seen.extend(page.items.iter().map(|i| i.value.clone()));
        options.after = page.items.last().map(|i| i.key.to_string());
        options.revision = Some(page.revision);
        if !page.more {
            break;
        }
        // The pages to come change and vanish meanwhile.
        store.write(put(&format!("/p/{}", seen.len()), "new", Expect::Anything)).await.unwrap();
        store.write(delete("/p/9", Expect::Anything)).await.unwrap();
    }
    assert_eq!(seen, vec![Bytes::from_static(b"old"); 10]);
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for snapshot_bytes_min in [u64::MAX, 0] {
        let dir = dir.path().join(format!("{snapshot_bytes_min}"));
        let open = || Embedded::open(&dir, Options { snapshot_bytes_min, ..Options::default() }).unwrap();
        let store = open();
        for n in 0..100 {
            store.write(put(&format!("/k/{}", n % 7), &n.to_string(), Expect::Anything)).await.unwrap();
        }
        store.compact(Revision(50)).await.unwrap();
        let before = (at(&store, 50).await, at(&store, 101).await);
        drop(store);
        for _ in 0..3 {
            let store = open();
            assert_eq!(store.revision().await.unwrap(), Revision(101));
            assert_eq!((at(&store, 50).await, at(&store, 101).await), before);
            assert!(matches!(store.watch("/", Revision(49)).await, Err(Error::Compacted { .. })));
            assert_eq!(events(&mut store.watch("/", Revision(99)).await.unwrap(), 101).await.len(), 2);
        }
    }
}

#[tokio::test]
async fn many_writers_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
    let writes = (0..64).map(|w| {
        let store = store.clone();
        async move {
            for n in 0..20 {
                store.write(put(&format!("/{w}/{n}"), "v", Expect::Absent)).await.unwrap();
            }
        }
    });
    futures::future::join_all(writes).await;
    assert_eq!(store.revision().await.unwrap(), Revision(1 + 64 * 20));
    assert_eq!(store.list("/", ListOptions::default()).await.unwrap().count, 64 * 20);
}

#[tokio::test(start_paused = true)]
async fn leases_end_by_the_engines_own_time() {
    let disk = SimDisk::new(3);
    let store = Embedded::with_disk(Arc::new(disk.clone()), Options::default()).unwrap();
    store.write(leased("/short", 10)).await.unwrap();
    store.write(leased("/long", 100)).await.unwrap();
    store.write(leased("/renewed", 10)).await.unwrap();
    store.write(leased("/kept", 10)).await.unwrap();
    store.write(put("/kept", "v", Expect::Anything)).await.unwrap();
    let pass = async |store: &Embedded, seconds: u64| {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            store.tick();
        }
    };
    pass(&store, 8).await;
    store.write(leased("/renewed", 10)).await.unwrap();
    tokio::time::advance(Duration::from_secs(86_400)).await;
    store.tick();
    // The jump counted for no more than five seconds.
    let keys = async |store: &Embedded| -> Vec<String> {
        let items = store.list("/", ListOptions::default()).await.unwrap().items;
        items.iter().map(|i| i.key.to_string()).collect()
    };
    assert_eq!(keys(&store).await, ["/kept", "/long", "/renewed"]);
    let end = events(&mut store.watch("/short", Revision(2)).await.unwrap(), 8).await;
    assert_eq!(end, ["8: /short=v@2 -> -"]);

    // 13 seconds are over; what is left of a lease survives a restart and a snapshot.
    store.snapshot().unwrap();
    drop(store);
    tokio::time::advance(Duration::from_secs(86_400)).await;
    let store = Embedded::with_disk(Arc::new(disk.crash()), Options::default()).unwrap();
    assert_eq!(keys(&store).await, ["/kept", "/long", "/renewed"]);
    pass(&store, 6).await;
    assert_eq!(keys(&store).await, ["/kept", "/long"]);
    pass(&store, 80).await;
    assert_eq!(keys(&store).await, ["/kept", "/long"]);
    pass(&store, 3).await;
    assert_eq!(keys(&store).await, ["/kept"]);
}

#[tokio::test]
async fn a_failed_fsync_stops_the_engine() {
    let disk = SimDisk::new(5);
    let store = Embedded::with_disk(Arc::new(disk.clone()), Options::default()).unwrap();
    store.write(put("/a", "1", Expect::Anything)).await.unwrap();
    disk.set_faults(Faults { fail_sync: Some(0), ..Faults::default() });
    assert!(matches!(store.write(put("/a", "2", Expect::Anything)).await, Err(Error::Unavailable(_))));
    let Err(Error::Failed(why)) = store.write(put("/a", "3", Expect::Anything)).await else { panic!() };
    assert!(why.starts_with("syncing sim/log-") && why.contains("restart"), "{why}");
    assert_eq!(store.failed().await, why);
    let fsyncs = disk.calls().iter().filter(|(c, _)| *c == Call::Sync).count();
    store.tick();
    assert_eq!(disk.calls().iter().filter(|(c, _)| *c == Call::Sync).count(), fsyncs, "the disk is left alone");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let disk = SimDisk::new(6);
    let store = Embedded::with_disk(Arc::new(disk.clone()), Options::default()).unwrap();
    store.write(put("/a", "1", Expect::Anything)).await.unwrap();
    // Nearly full: refused before anything breaks, but deletions may help.
    disk.set_faults(Faults { free_bytes: Some(1 << 20), ..Faults::default() });
    store.tick();
    let Err(Error::NoSpace(why)) = store.write(put("/a", "2", Expect::Anything)).await else { panic!() };
    assert!(why.contains("only 1 MiB are free") && why.contains("sim/"), "{why}");
    store.write(delete("/a", Expect::Anything)).await.unwrap();
    // Space is back; then an append finds none left.
    disk.set_faults(Faults::default());
    store.tick();
    store.write(put("/a", "3", Expect::Anything)).await.unwrap();
    disk.set_faults(Faults { free_bytes: Some(40), ..Faults::default() });
    assert!(matches!(store.write(put("/a", "4", Expect::Anything)).await, Err(Error::NoSpace(_))));
    assert!(matches!(store.write(put("/a", "5", Expect::Anything)).await, Err(Error::NoSpace(_))));
    assert_eq!(at(&store, 4).await, ["/a=3@4"], "reads go on");
    disk.set_faults(Faults::default());
    store.tick();
    store.write(put("/a", "6", Expect::Anything)).await.unwrap();
    assert_eq!(at(&store, 5).await, ["/a=6@5"]);
    drop(store);
    let store = Embedded::with_disk(Arc::new(disk.crash()), Options::default()).unwrap();
    assert_eq!(at(&store, 5).await, ["/a=6@5"]);
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let Err(Error::Open(why)) = Embedded::open(dir.path(), Options::default()) else { panic!("opened twice") };
    assert!(why.contains("in use by another process") && why.contains(&std::process::id().to_string()), "{why}");
    drop(store);
    drop(Embedded::open(dir.path(), Options::default()).unwrap());

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let Err(Error::Open(why)) = Embedded::open(&file, Options::default()) else { panic!("opened a file") };
    assert!(why.contains("not a directory"), "{why}");
}

#[tokio::test]
async fn a_watch_that_falls_behind_ends() {
    let store = Embedded::in_memory_with(Options { history_bytes_max: 4000, ..Options::default() });
    let mut slow = store.watch("/", Revision(1)).await.unwrap();
    for n in 0..100 {
        store.write(put("/a", &n.to_string(), Expect::Anything)).await.unwrap();
    }
    assert!(matches!(slow.next().await, Some(Err(Error::Lagged))));
    assert!(slow.next().await.is_none());
    let mut open = store.watch("/", Revision(101)).await.unwrap();
    assert!(matches!(open.next().await, Some(Ok(WatchItem::Progress(Revision(101))))));
    drop(store);
    assert!(matches!(open.next().await, Some(Err(Error::Unavailable(_)))));
}

/// A disk whose appends panic.
struct Panics(SimDisk, Arc<std::sync::atomic::AtomicBool>);

struct PanicFile(Box<dyn store::disk::DiskFile>, Arc<std::sync::atomic::AtomicBool>);

impl store::disk::DiskFile for PanicFile {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        assert!(!self.1.load(std::sync::atomic::Ordering::Relaxed), "as the test wants it");
        self.0.append(bytes)
    }
    fn sync(&mut self, point: SyncPoint) -> std::io::Result<()> {
        self.0.sync(point)
    }
}

impl store::disk::Disk for Panics {
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn read(&self, name: &str, offset: u64, max: usize) -> std::io::Result<Vec<u8>> {
        self.0.read(name, offset, max)
    }
    fn create(&self, name: &str) -> std::io::Result<Box<dyn store::disk::DiskFile>> {
        Ok(Box::new(PanicFile(self.0.create(name)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self, point: SyncPoint) -> std::io::Result<()> {
        self.0.sync_dir(point)
    }
    fn free_bytes(&self) -> std::io::Result<u64> {
        self.0.free_bytes()
    }
    fn describe(&self, name: &str) -> String {
        self.0.describe(name)
    }
}

#[tokio::test]
async fn nobody_waits_for_a_writer_that_panicked() {
    let panics = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let disk = Arc::new(Panics(SimDisk::new(1), panics.clone()));
    let store = Embedded::with_disk_and_thread(disk, Options::default()).unwrap();
    store.write(put("/a", "1", Expect::Anything)).await.unwrap();
    panics.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(store.write(put("/a", "2", Expect::Anything)).await, Err(Error::Unavailable(_))));
    let again = tokio::time::timeout(Duration::from_secs(5), store.write(put("/a", "3", Expect::Anything))).await;
    assert!(matches!(again, Ok(Err(Error::Failed(_) | Error::Unavailable(_)))));
    assert!(matches!(store.get("/a").await, Err(Error::Failed(_))));
}

/// Watchers of several prefixes, some slow, while many write and history is compacted: each sees every change once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn watches_miss_nothing_and_repeat_nothing() {
    const WRITES: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let progress_interval = Duration::from_millis(20);
    let options = Options { snapshot_bytes_min: 100_000, progress_interval, ..Options::default() };
    let store = Arc::new(Embedded::open(dir.path(), options).unwrap());
    let mut watchers = tokio::task::JoinSet::new();
    for n in 0..12_u64 {
        let store = store.clone();
        let prefix = ["/", "/0/", "/1/"][n as usize % 3];
        watchers.spawn(async move {
            // Some start late, from an early revision.
            tokio::time::sleep(Duration::from_millis(n % 4 * 10)).await;
            let mut stream = store.watch(prefix, Revision(1)).await.unwrap();
            let (mut last, mut seen) = (Revision(1), Vec::new());
            while last.0 < 1 + WRITES {
                match stream.next().await.unwrap().unwrap() {
                    WatchItem::Progress(r) => last = last.max(r),
                    WatchItem::Events(events) => {
                        for e in events {
                            assert!(e.revision > last && e.key.starts_with(prefix), "goes back, repeats or strays");
                            last = e.revision;
                            seen.push(e);
                        }
                    }
                }
                // All of a prefix has been seen when the store has nothing newer under it.
                let freshness = store.freshness(prefix).await.unwrap();
                if freshness.revision.0 == 1 + WRITES && last >= freshness.needed {
                    break;
                }
                if n % 4 == 3 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            (prefix, seen)
        });
    }
    let writers = (0..10_u64).map(|w| {
        let store = store.clone();
        async move {
            for n in 0..WRITES / 10 {
                let key = format!("/{}/{w}/{}", n % 3, n % 7);
                store.write(put(&key, &n.to_string(), Expect::Anything)).await.unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
    let mut all: Vec<store::Event> = Vec::new();
    let mut results = Vec::new();
    while let Some(result) = watchers.join_next().await {
        let (prefix, seen) = result.unwrap();
        if prefix == "/" {
            all.clone_from(&seen);
        }
        results.push((prefix, seen));
    }
    assert!(all.iter().map(|e| e.revision.0).eq(2..=1 + WRITES));
    for (prefix, seen) in results {
        let want: Vec<_> = all.iter().filter(|e| e.key.starts_with(prefix)).cloned().collect();
        assert_eq!(seen.len(), want.len(), "{prefix}");
        assert!(seen == want, "{prefix}");
    }
    // Compaction beside a watch that has read everything does not disturb it.
    let mut stream = store.watch("/", Revision(WRITES)).await.unwrap();
    assert_eq!(events(&mut stream, 1 + WRITES).await.len(), 1);
    store.compact(Revision(1 + WRITES)).await.unwrap();
    store.write(put("/0/x", "y", Expect::Absent)).await.unwrap();
    assert_eq!(events(&mut stream, 2 + WRITES).await, [format!("{}: - -> /0/x=y@{}", 2 + WRITES, 2 + WRITES)]);
}
