//! kill -9: a child process writes and says what was acknowledged; after it is killed, all of that is there.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Embedded, Expect, ListOptions, Op, Options, Store};

const DIR: &str = "STORE_KILL_TEST_DIR";

/// Small limits, so that snapshots and new segments happen all the time.
fn options() -> Options {
    Options { snapshot_bytes_min: 50_000, history_bytes_max: 100_000, ..Options::default() }
}

/// The child; as a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = Arc::new(Embedded::open(dir, options()).unwrap());
    let writers = (0..16).map(|w| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let key = format!("/k/{w}/{}", n % 5);
                let value = Bytes::from(format!("{n} {}", "x".repeat(n % 700)));
                let op = Op::Put { key: Arc::from(&*key), value, expect: Expect::Anything, ttl: None };
                let revision = store.write(op).await.unwrap().0.0;
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {key} {revision} {n}").unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Runs a child for a while and answers what it said: for each key its last acknowledged revision and number.
fn run_and_kill(dir: &Path, time: Duration) -> BTreeMap<String, (u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut killed = None;
    for line in lines.map_while(Result::ok) {
        let killed_at = killed.get_or_insert_with(Instant::now);
        if killed_at.elapsed() >= time {
            child.kill().unwrap();
        }
        // The last line may be cut.
        let Some((_, rest)) = line.split_once("ack ") else { continue };
        if let [key, revision, n] = rest.split(' ').collect::<Vec<_>>()[..]
            && let (Ok(revision), Ok(n)) = (revision.parse::<u64>(), n.parse())
        {
            let last = acknowledged.entry(key.to_owned()).or_insert((0, 0));
            *last = (*last).max((revision, n));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..4 {
        let acknowledged = run_and_kill(dir.path(), Duration::from_millis(150 + 70 * round));
        assert!(!acknowledged.is_empty(), "the child wrote nothing");
        let store = Embedded::open(dir.path(), options()).unwrap();
        let listing = store.list("/k/", ListOptions::default()).await.unwrap();
        for item in &listing.items {
            let Some((revision, n)) = acknowledged.get(&*item.key) else { continue };
            let value = std::str::from_utf8(&item.value).unwrap();
            let there: u64 = value.split(' ').next().unwrap().parse().unwrap();
            assert!(item.mod_revision.0 >= *revision, "{} is older than acknowledged", item.key);
            assert!(there >= *n && value.len() as u64 == there.to_string().len() as u64 + 1 + there % 700, "{}", item.key);
        }
        assert!(acknowledged.keys().all(|key| listing.items.iter().any(|i| *i.key == **key)), "a key is gone");
        assert!(listing.revision.0 > total);
        total = listing.revision.0;
        let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 1_000_000, "{bytes} bytes of disk for {} keys", listing.count);
    }
}
