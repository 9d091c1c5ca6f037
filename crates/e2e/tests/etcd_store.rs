//! The store over three etcd members, under kill -9 and partitions: the history of concurrent clients is linearizable, and
//! no watcher misses, repeats or reorders an event. `SKIFF_ETCD_ROUNDS=20` makes it the long form.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::fleet::{Fleet, Gaps, MACHINES, with_etcd};
use etcd::{Etcd, Options};
use futures::StreamExt as _;
use store::history::{Answer, Call, Expecting, History, Seen, Watched};
use store::{Error, Expect, KeyValue, Op, Revision, Store, WatchItem};

const CLIENTS: u64 = 6;
const KEYS: u64 = 4;
/// How long a write may take without being looked at.
const SLOW: Duration = Duration::from_secs(2);
const PREFIX: &str = "/registry/history/";

fn number(item: &KeyValue) -> u64 {
    std::str::from_utf8(&item.value).unwrap().parse().unwrap()
}

struct Test {
    history: History,
    stop: AtomicBool,
    gaps: Gaps,
    writes: AtomicU64,
    /// Writes that took more than `SLOW`: how they ended, how often, and how long at most.
    slow: Mutex<BTreeMap<String, (u64, Duration)>>,
}

/// One client: reads and writes keys at random until told to stop.
async fn client(test: Arc<Test>, store: Arc<Etcd>, id: u64) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(id + 1);
    while !test.stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = format!("{PREFIX}{}", random % KEYS);
        step(&test, &store, id, &key, (random >> 32) % 10).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A read, and then perhaps a write that builds on it.
async fn step(test: &Test, store: &Etcd, id: u64, key: &str, dice: u64) {
    let ticket = test.history.call(id, key, Call::Get);
    let Ok((_, found)) = store.get(key).await else { return };
    ticket.answer(Answer::Read(found.as_ref().map(number)));
    let (expecting, expect) = match (&found, dice) {
        (_, 0) => (Expecting::Anything, Expect::Anything),
        (None, _) => (Expecting::Absent, Expect::Absent),
        (Some(item), _) => (Expecting::Value(number(item)), Expect::Revision(item.mod_revision)),
    };
    let (call, op) = match dice {
        1 | 2 if found.is_some() => (Call::Delete(expecting), Op::Delete { key: key.into(), expect }),
        3 => return,
        _ => {
            let new = test.history.number();
            (Call::Put(new, expecting), Op::Put { key: key.into(), value: new.to_string().into(), expect, ttl: None })
        }
    };
    let ticket = test.history.call(id, key, call);
    let began = Instant::now();
    let answer = store.write(op).await;
    let took = began.elapsed();
    if took > SLOW {
        let how = answer.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
        let mut slow = test.slow.lock().unwrap();
        let (count, most) = slow.entry(how).or_default();
        (*count, *most) = (*count + 1, took.max(*most));
    }
    match answer {
        Ok((revision, item)) => {
            let nothing = matches!(call, Call::Delete(_)) && item.is_none();
            ticket.answer(if nothing { Answer::Nothing } else { Answer::Written(Some(revision.0)) });
            test.gaps.success(usize::try_from(id).unwrap());
            test.writes.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Conflict(there)) => ticket.answer(Answer::Refused(Some(there.as_ref().map(number)))),
        // Nobody knows: the ticket is dropped.
        Err(Error::Unavailable(_) | Error::Cluster(_) | Error::Timeout(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

/// One watcher, from the beginning to a revision that is told when all is done.
async fn watcher(store: Arc<Etcd>, mut until: tokio::sync::watch::Receiver<u64>) -> Watched {
    let mut watched = Watched { after: 1, until: 0, prefix: PREFIX.into(), events: Vec::new() };
    let mut stream = store.watch(PREFIX, Revision(1)).await.unwrap();
    loop {
        if *until.borrow() > 0 && watched.events.last().is_some_and(|e| e.revision >= *until.borrow()) {
            watched.until = *until.borrow();
            return watched;
        }
        let item = tokio::select! { biased;
            item = tokio::time::timeout(Duration::from_secs(30), stream.next()) => item.expect("an event in time").unwrap(),
            told = until.changed() => {
                told.unwrap();
                continue;
            }
        };
        match item {
            Ok(WatchItem::Events(events)) => watched.events.extend(events.iter().map(|e| Seen {
                revision: e.revision.0,
                key: e.key.clone(),
                value: e.value.as_ref().map(number),
            })),
            Ok(WatchItem::Progress(_)) => {}
            Err(error) => panic!("a watch ended: {error}"),
        }
    }
}

/// What is done to the cluster, one after another.
fn disturb(fleet: &mut Fleet, round: usize, test: &Test) -> anyhow::Result<()> {
    let at = round % MACHINES;
    let other = (at + 1) % MACHINES;
    let began = Instant::now();
    let settle = Duration::from_millis(2500);
    let what = match round % 4 {
        0 => {
            fleet.kill(at, "etcd")?;
            std::thread::sleep(settle);
            fleet.run_etcd(at)?;
            "a member killed and started again"
        }
        1 => {
            fleet.cut(at)?;
            std::thread::sleep(settle * 2);
            fleet.join(at)?;
            "a member cut off from all"
        }
        2 => {
            for peer in (0..MACHINES).filter(|p| *p != at) {
                fleet.part(at, peer)?;
            }
            std::thread::sleep(settle);
            for peer in (0..MACHINES).filter(|p| *p != at) {
                fleet.rejoin(at, peer)?;
            }
            "a member cut off from its peers, not from clients"
        }
        _ => {
            fleet.kill(at, "etcd")?;
            fleet.kill(other, "etcd")?;
            std::thread::sleep(settle);
            fleet.run_etcd(at)?;
            fleet.run_etcd(other)?;
            "two of three killed: no quorum until they are back"
        }
    };
    std::thread::sleep(Duration::from_millis(1500));
    let (all, one) = test.gaps.longest(began, Instant::now());
    println!("{what}: {all:.1} s without any write, {one:.1} s for the unluckiest client");
    Ok(())
}

fn under_kills_and_partitions() -> anyhow::Result<()> {
    let rounds = std::env::var("SKIFF_ETCD_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(4);
    let mut fleet = Fleet::start().unwrap();
    let test = Arc::new(Test {
        history: History::default(),
        stop: AtomicBool::new(false),
        gaps: Gaps::default(),
        writes: AtomicU64::new(0),
        slow: Mutex::default(),
    });
    let hub = fleet.hub().clone();
    let clients = std::thread::spawn({
        let test = test.clone();
        move || hub.run(|| run_clients(&test)).unwrap()
    });
    let until = Instant::now() + Duration::from_secs(20);
    while test.writes.load(Ordering::Relaxed) < 20 {
        assert!(Instant::now() < until, "no writes: {}", fleet.log(0, "etcd"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for round in 0..rounds {
        disturb(&mut fleet, round, &test).unwrap();
    }
    test.stop.store(true, Ordering::Relaxed);
    let watches = clients.join().unwrap();
    let calls = test.history.check().unwrap();
    let events = test.history.check_watches(&watches).unwrap();
    let writes = test.writes.load(Ordering::Relaxed);
    println!("{calls} calls, {writes} acknowledged writes, {events} events seen by {} watchers: linearizable, none lost", watches.len());
    for (how, (count, most)) in &*test.slow.lock().unwrap() {
        println!("{count} writes of more than {SLOW:?}, {:.1} s at most: {how}", most.as_secs_f64());
    }
    assert!(writes > 100, "only {writes} writes");
    Ok(())
}

/// Clients and watchers, each watcher beginning at another member.
fn run_clients(test: &Arc<Test>) -> Vec<Watched> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let all = Arc::new(Etcd::connect(Options::new(Fleet::etcd_urls())).await.unwrap());
        let (done, until) = tokio::sync::watch::channel(0);
        let mut watchers = Vec::new();
        for at in 0..MACHINES {
            let mut urls = Fleet::etcd_urls();
            urls.rotate_left(at);
            let store = Arc::new(Etcd::connect(Options::new(urls)).await.unwrap());
            watchers.push(tokio::spawn(watcher(store, until.clone())));
        }
        let mut clients = tokio::task::JoinSet::new();
        for id in 0..CLIENTS {
            let store = if id % 2 == 0 { all.clone() } else { Arc::new(Etcd::connect(Options::new(Fleet::etcd_urls())).await.unwrap()) };
            clients.spawn(client(test.clone(), store, id));
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
        // A last write, which every watcher must come to see.
        let last = test.history.number();
        let key = format!("{PREFIX}last");
        let ticket = test.history.call(CLIENTS, &key, Call::Put(last, Expecting::Anything));
        let op = Op::Put { key: key.as_str().into(), value: last.to_string().into(), expect: Expect::Anything, ttl: None };
        let (revision, _) = all.write(op).await.unwrap();
        ticket.answer(Answer::Written(Some(revision.0)));
        done.send(revision.0).unwrap();
        let mut watched = Vec::new();
        for watcher in watchers {
            watched.push(watcher.await.unwrap());
        }
        watched
    })
}

#[test]
fn histories_under_kills_and_partitions_are_linearizable_and_watches_complete() {
    with_etcd(under_kills_and_partitions);
}
