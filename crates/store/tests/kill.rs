//! kill -9 under load: a child process serves many clients from a store and says in order what is called, answered and seen by
//! watchers; it is killed at any moment, and started again. What it said must be a linearizable history, and every watcher,
//! resumed where it was, must have seen each write once. `STORE_KILLS=1000` makes it a long run.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use mix::Random;
use store::history::{Answer, Call, Expecting, History, Seen, Ticket, Watched};
use store::{Embedded, Error, Expect, KeyValue, Op, Options, Revision, Store, WatchItem};

const DIR: &str = "STORE_KILL_TEST_DIR";
/// `seed first-number revision-of-watcher-0 revision-of-watcher-1 ...`
const START: &str = "STORE_KILL_TEST_START";
const CLIENTS: u64 = 24;
const KEYS: u64 = 6;
const PREFIXES: [&str; 3] = ["/", "/a", "/b"];

/// Small limits, so that snapshots and new segments happen all the time; history lasts longer than a watcher is away.
fn options() -> Options {
    Options { snapshot_bytes_min: 100_000, history_bytes_max: 8 << 20, ..Options::default() }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more when the test is over.
    writeln!(out, "{line}").ok();
}

fn number_of(item: &KeyValue) -> u64 {
    std::str::from_utf8(&item.value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn key(n: u64) -> String {
    format!("/{}{n}", ["a", "b"][n as usize % 2])
}

fn shown(number: Option<u64>) -> String {
    number.map_or("-".into(), |n| n.to_string())
}

/// The child; as a test of its own it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let start: Vec<u64> = std::env::var(START).unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    let store = Arc::new(Embedded::open(dir, options()).unwrap());
    say(&format!("\nopen {}", store.revision().await.unwrap().0));
    let numbers = Arc::new(AtomicU64::new(start[1]));
    for (w, after) in start[2..].iter().enumerate() {
        tokio::spawn(watcher(store.clone(), w, *after));
    }
    let clients = (0..CLIENTS).map(|c| tokio::spawn(client(store.clone(), c, start[0], numbers.clone())));
    futures::future::join_all(clients).await;
}

async fn watcher(store: Arc<Embedded>, w: usize, after: u64) {
    let mut stream = match store.watch(PREFIXES[w], Revision(after)).await {
        Ok(stream) => stream,
        Err(e) => return say(&format!("lost {w} {after} {e}")),
    };
    while let Some(item) = stream.next().await {
        match item {
            Ok(WatchItem::Progress(revision)) => say(&format!("at {w} {}", revision.0)),
            Ok(WatchItem::Events(events)) => {
                let mut lines = String::new();
                for e in events {
                    let number = shown(e.value.as_ref().map(number_of));
                    writeln!(lines, "seen {w} {} {} {number}", e.revision.0, e.key).unwrap();
                }
                say(lines.trim_end());
            }
            Err(e) => return say(&format!("lost {w} {after} {e}")),
        }
    }
}

async fn client(store: Arc<Embedded>, c: u64, seed: u64, numbers: Arc<AtomicU64>) {
    let mut random = Random(seed ^ (c << 40));
    let mut known: HashMap<String, KeyValue> = HashMap::new();
    loop {
        let n = random.below(KEYS);
        let key = key(n);
        let (expect, expecting) = match (random.below(4), known.get(&key)) {
            (0, _) => (Expect::Anything, "any".to_owned()),
            (1, _) | (_, None) => (Expect::Absent, "absent".to_owned()),
            (_, Some(item)) => (Expect::Revision(item.mod_revision), number_of(item).to_string()),
        };
        let key_: Arc<str> = Arc::from(&*key);
        match random.below(6) {
            0 | 1 => {
                say(&format!("call {c} {key} get"));
                let item = store.get(&key).await.unwrap().1;
                say(&format!("read {c} {}", shown(item.as_ref().map(number_of))));
                match item {
                    Some(item) => known.insert(key, item),
                    None => known.remove(&key),
                };
            }
            2 if expect != Expect::Absent => {
                say(&format!("call {c} {key} delete {expecting}"));
                answered(c, store.write(Op::Delete { key: key_, expect }).await);
            }
            _ => {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                say(&format!("call {c} {key} put {expecting} {number}"));
                let value = Bytes::from(format!("{number} {}", "x".repeat(random.below(700) as usize)));
                answered(c, store.write(Op::Put { key: key_, value, expect, ttl: None }).await);
            }
        }
    }
}

fn answered(c: u64, outcome: store::Result<(Revision, Option<KeyValue>)>) {
    match outcome {
        // A put's own answer holds no value; a deletion's that holds none deleted nothing.
        Ok((revision, item)) => say(&format!("written {c} {} {}", revision.0, shown(item.as_ref().map(number_of)))),
        Err(Error::Conflict(there)) => say(&format!("refused {c} {}", shown(there.as_ref().map(number_of)))),
        Err(e) => panic!("{e}"),
    }
}

#[derive(Default)]
struct Run {
    watches: Vec<Watched>,
    next_number: u64,
    revision: u64,
}

fn optional(word: &str) -> Option<Option<u64>> {
    if word == "-" { Some(None) } else { word.parse().ok().map(Some) }
}

impl Run {
    /// Takes one line. `None`: it was cut by the kill.
    fn line<'a>(&mut self, history: &'a History, open: &mut HashMap<u64, (Ticket<'a>, bool)>, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let id: u64 = words.get(1)?.parse().ok()?;
        match words[0] {
            "open" => {
                assert!(id >= self.revision, "revisions went back from {} to {id}", self.revision);
            }
            "call" => {
                let expecting = |word: &str| match word {
                    "any" => Some(Expecting::Anything),
                    "absent" => Some(Expecting::Absent),
                    number => number.parse().ok().map(Expecting::Value),
                };
                let call = match words[3..] {
                    ["get"] => Call::Get,
                    ["delete", e] => Call::Delete(expecting(e)?),
                    ["put", e, number] => {
                        let number = number.parse().ok()?;
                        self.next_number = self.next_number.max(number + 1);
                        Call::Put(number, expecting(e)?)
                    }
                    _ => return None,
                };
                let delete = matches!(call, Call::Delete(_));
                open.insert(id, (history.call(id, words[2], call), delete));
            }
            "read" => open.remove(&id)?.0.answer(Answer::Read(optional(words[2])?)),
            "refused" => open.remove(&id)?.0.answer(Answer::Refused(Some(optional(words[2])?))),
            "written" => {
                let (revision, item) = (words[2].parse::<u64>().ok()?, optional(words.get(3)?)?);
                let (ticket, delete) = open.remove(&id)?;
                self.revision = self.revision.max(revision);
                let nothing = delete && item.is_none();
                ticket.answer(if nothing { Answer::Nothing } else { Answer::Written(Some(revision)) });
            }
            "seen" => {
                let seen = Seen { revision: words[2].parse().ok()?, key: Arc::from(words[3]), value: optional(words.get(4)?)? };
                let watch = &mut self.watches[usize::try_from(id).ok()?];
                watch.until = watch.until.max(seen.revision);
                watch.events.push(seen);
            }
            "at" => {
                let watch = &mut self.watches[usize::try_from(id).ok()?];
                watch.until = watch.until.max(words[2].parse().ok()?);
            }
            "lost" => panic!("a watcher could not go on: {line}"),
            _ => {}
        }
        Some(())
    }

    /// Runs a child for a while, kills it, and notes what it said.
    fn round(&mut self, history: &History, dir: &Path, seed: u64, time: Duration) {
        let start = [seed, self.next_number].into_iter().chain(self.watches.iter().map(|w| w.until));
        let start: Vec<String> = start.map(|n| n.to_string()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIR, dir)
            .env(START, start.join(" "))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let (mut open, mut killed_at, mut line) = (HashMap::new(), None, String::new());
        loop {
            line.clear();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                break;
            }
            if line.starts_with("open") {
                killed_at = Some(Instant::now() + time);
            }
            if killed_at.is_some_and(|at| Instant::now() >= at) {
                child.kill().unwrap();
            }
            // A line without an end was cut.
            if let Some(line) = line.strip_suffix('\n') {
                self.line(history, &mut open, line);
            }
        }
        child.wait().unwrap();
        assert!(killed_at.is_some(), "the child did not open the store");
        open.into_values().for_each(|(ticket, _)| ticket.stopped());
    }
}

#[tokio::test]
async fn histories_are_linear_and_watches_whole_through_kill_9() {
    let kills: u64 = std::env::var("STORE_KILLS").map_or(5, |n| n.parse().unwrap());
    let (dir, began) = (tempfile::tempdir().unwrap(), Instant::now());
    let history = History::default();
    let mut run = Run { next_number: 1, ..Run::default() };
    run.watches = PREFIXES.map(|prefix| Watched { after: 1, until: 1, prefix: prefix.into(), events: Vec::new() }).into();
    let mut random = Random(kills);
    for round in 0..kills {
        run.round(&history, dir.path(), round, Duration::from_millis(20 + random.below(200)));
    }
    let store = Embedded::open(dir.path(), options()).unwrap();
    for n in 0..KEYS {
        let key = key(n);
        let ticket = history.call(99, &key, Call::Get);
        let item = store.get(&key).await.unwrap().1;
        ticket.answer(Answer::Read(item.as_ref().map(number_of)));
    }
    let calls = history.check().unwrap();
    let events = history.check_watches(&run.watches).unwrap();
    let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    println!(
        "{kills} kills in {:?}: {calls} calls and {events} events checked, revision {}, {bytes} bytes on disk",
        began.elapsed(),
        store.revision().await.unwrap().0
    );
    assert!(calls > 500 && events > 200, "too little happened: {calls} calls, {events} events");
    assert!(bytes < 40_000_000, "{bytes} bytes of disk for {KEYS} keys");
}
