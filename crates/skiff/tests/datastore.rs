//! `skiff datastore` through the real binary: beside a store that is in use, and without one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use store::{Embedded, Error, Expect, ListOptions, Op, Options, Revision, Store};

fn skiff(data: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
    let out = command.arg("datastore").args(arguments).arg("--data-dir").arg(data).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

fn ok(data: &Path, arguments: &[&str]) -> String {
    let (success, said) = skiff(data, arguments);
    assert!(success, "{arguments:?}: {said}");
    said
}

fn fails(data: &Path, arguments: &[&str], because: &str) {
    let (success, said) = skiff(data, arguments);
    assert!(!success && said.contains(because), "{arguments:?} should fail for {because:?}: {said}");
}

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: Arc::from(key), value: Bytes::copy_from_slice(value.as_bytes()), expect: Expect::Anything, ttl: None }
}

/// Small limits, so that files come and go under a reader.
fn open(data: &Path) -> Embedded {
    Embedded::open(data.join("store"), Options { snapshot_bytes_min: 40_000, ..Options::default() }).unwrap()
}

async fn content(store: &Embedded) -> Vec<(String, Bytes, Revision)> {
    let items = store.list("/", ListOptions::default()).await.unwrap().items;
    items.into_iter().map(|i| (i.key.to_string(), i.value, i.mod_revision)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_store_in_use_has_all_that_was_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (store, stop, acknowledged) = (Arc::new(open(&data)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (store, stop, acknowledged) = (store.clone(), stop.clone(), acknowledged.clone());
        async move {
            for n in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let revision = store.write(put(&format!("/{}", n % 50), &"x".repeat(300))).await.unwrap().0;
                acknowledged.store(revision.0, Ordering::Relaxed);
            }
        }
    });
    for n in 0..5 {
        let file = dir.path().join(format!("{n}.snapshot"));
        let name = file.to_str().unwrap();
        let before = acknowledged.load(Ordering::Relaxed);
        ok(&data, &["snapshot", name]);
        ok(&data, &["check"]);
        ok(&data, &["check", name]);
        let copy = dir.path().join(format!("copy-{n}"));
        ok(&copy, &["restore", name, "--bump-revision", "0"]);
        let copy = open(&copy);
        let revision = copy.revision().await.unwrap().0;
        assert!(revision >= before, "{revision} is before {before}");
        // Every key as it was then, and the history.
        for (key, _, at) in content(&copy).await {
            assert!(at.0 <= revision && at.0 + 60 > revision, "{key} of {at:?} at {revision}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert!(acknowledged.load(Ordering::Relaxed) > 100, "the writer did not write beside");
}

#[tokio::test]
async fn restoring_goes_on_after_every_revision_that_anyone_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    let store = open(&data);
    for n in 0..30 {
        store.write(put(&format!("/{}", n % 7), "v")).await.unwrap();
    }
    let file = dir.path().join("a.snapshot");
    let name = file.to_str().unwrap();
    assert!(ok(&data, &["snapshot", name]).contains("revision 31, 7 keys"));
    let before = content(&store).await;
    fails(&data, &["snapshot", name], "there already");
    fails(&data, &["restore", name], "a datastore is in");
    fails(&data, &["compact"], &format!("in use by another process (process {})", std::process::id()));
    fails(&dir.path().join("nothing"), &["snapshot", "/dev/null/x"], "/dev/null/x");
    fails(&dir.path().join("nothing"), &["check"], "--data-dir");

    ok(&new, &["restore", name]);
    let restored = open(&new);
    assert_eq!(content(&restored).await, before);
    assert_eq!(restored.revision().await.unwrap(), Revision(1_000_000_031));
    // Who watches from what is lost, or from before, is told to list again.
    for seen in [20, 31, 40] {
        assert!(matches!(restored.watch("/", Revision(seen)).await, Err(Error::Compacted { .. })));
    }
    assert_eq!(restored.write(put("/new", "w")).await.unwrap().0, Revision(1_000_000_032));
    drop(restored);
    assert_eq!(open(&new).revision().await.unwrap(), Revision(1_000_000_032));
}

#[tokio::test]
async fn damage_is_named_with_its_place_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    let store = open(&data);
    for n in 0..400 {
        store.write(put(&format!("/{n}"), &n.to_string().repeat(100))).await.unwrap();
    }
    drop(store);
    let file = dir.path().join("a.snapshot");
    let name = file.to_str().unwrap();
    ok(&data, &["snapshot", name]);

    let good = fs::read(&file).unwrap();
    for at in [3, 19, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&file, &bad).unwrap();
        fails(&new, &["check", name], "at byte");
        fails(&new, &["restore", name], "use another backup");
        fs::write(&file, &good[..at]).unwrap();
        fails(&new, &["restore", name], "use another backup");
    }
    assert!(!new.join("store").exists(), "a failed restore left something");
    fs::write(&file, &good).unwrap();

    let files = || fs::read_dir(data.join("store")).unwrap().map(|e| e.unwrap().path());
    let largest = files().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let (success, said) = skiff(&data, &["check"]);
    assert!(!success && said.contains(largest.to_str().unwrap()) && said.contains("at byte"), "{said}");
    assert!(said.contains("skiff datastore restore"), "{said}");
    assert_eq!(fs::read(&largest).unwrap(), bytes, "the damaged file was changed");

    // What is said helps.
    fs::rename(data.join("store"), dir.path().join("away")).unwrap();
    ok(&data, &["restore", name]);
    assert_eq!(content(&open(&data)).await.len(), 400);
}

#[tokio::test]
async fn compacting_gives_back_the_space() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = Embedded::open(data.join("store"), Options::default()).unwrap();
    for n in 0..2000 {
        store.write(put(&format!("/{}", n % 10), &"y".repeat(1000))).await.unwrap();
    }
    drop(store);
    let bytes = || fs::read_dir(data.join("store")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum::<u64>();
    let before = bytes();
    assert!(before > 2_000_000);
    assert!(ok(&data, &["compact"]).contains("revision 2001, 10 keys, 0 changes"));
    assert!(bytes() < 20_000, "{} of {before} bytes are left", bytes());
    assert_eq!(content(&open(&data)).await.len(), 10);
}

/// The API server, killed when dropped.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[test]
fn an_api_server_takes_snapshots_on_schedule_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let run = |cron: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
        command.args(["kube-apiserver", "--bind-address", "127.0.0.1", "--secure-port", "0", "--datastore-snapshot-retention", "2"]);
        command.arg("--data-dir").arg(&data).args(["--datastore-snapshot-schedule-cron", cron]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let refused = run("now and then").stderr(std::process::Stdio::piped()).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("five cron fields are wanted"), "{why}");

    let server = Server(run("@every 1s").spawn().unwrap());
    let list = || -> Vec<String> {
        let Ok(entries) = fs::read_dir(data.join("snapshots")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| n.ends_with(".snapshot"));
        names.sort();
        names
    };
    let (begin, mut first) = (std::time::Instant::now(), None);
    loop {
        let names = list();
        first = first.or_else(|| names.first().cloned());
        assert!(names.len() <= 3, "more than are kept and one that is just made: {names:?}");
        if first.as_ref().is_some_and(|first| !names.contains(first)) && names.len() == 2 {
            break;
        }
        assert!(begin.elapsed().as_secs() < 60, "only {names:?} after a minute");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(server);
    let newest = data.join("snapshots").join(list().pop().unwrap());
    let said = ok(&data, &["check", newest.to_str().unwrap()]);
    assert!(said.contains("is whole"), "{said}");
    ok(&dir.path().join("new"), &["restore", newest.to_str().unwrap()]);
}
