//! The storage engine without a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use store::{Embedded, Expect, Key, ListOptions, Op, Revision, Store, WatchItem};
use tokio::task::JoinSet;

use crate::report::{self, Latencies, Row};
use crate::server::data_dir;

const VALUE_BYTES: usize = 1024;
const KEYS: u64 = 100_000;

pub async fn run(options: &crate::Options) -> Result<()> {
    let (dir, _temporary) = data_dir(options)?;
    let dir = dir.join("engine");
    report::head();
    let open = || Embedded::open(&dir, store::Options::default());
    let store = Arc::new(open()?);
    for writers in [1, 8, options.connections, 256] {
        report::print(write(&store, writers, options.duration()).await?);
    }
    report::print(watch(&store).await?);
    report::print(list(&store, options.duration()).await?);
    drop(store);
    let mut latencies = Latencies::default();
    for _ in 0..5 {
        let begin = Instant::now();
        let store = open()?;
        latencies.add(begin.elapsed());
        drop(store);
    }
    report::print(row("open again", 1, 1.0, latencies, Some(5)));
    Ok(())
}

fn row(operation: &str, concurrency: usize, seconds: f64, latencies: Latencies, count: Option<u64>) -> Row {
    Row { seconds, latencies, count, ..Row::new("engine", operation, concurrency) }
}

fn put(key: u64) -> Op {
    let key: Key = Arc::from(format!("/registry/things/default/{:06}", key % KEYS));
    Op::Put { key, value: Bytes::from(vec![b'x'; VALUE_BYTES]), expect: Expect::Anything, ttl: None }
}

async fn write(store: &Arc<Embedded>, writers: usize, time: Duration) -> Result<Row> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers as u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            for n in 0.. {
                let start = Instant::now();
                if start > begin + time {
                    break;
                }
                store.write(put(writer * 7919 + n)).await?;
                latencies.add(start.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Latencies::default();
    while let Some(ended) = tasks.join_next().await {
        latencies.merge(ended??);
    }
    Ok(row("put 1 KiB, durable", writers, begin.elapsed().as_secs_f64(), latencies, None))
}

/// From a write's start until a watch has its event.
async fn watch(store: &Arc<Embedded>) -> Result<Row> {
    let mut stream = store.watch("/registry/things/", store.revision().await?).await?;
    let begin = Instant::now();
    let mut latencies = Latencies::default();
    for n in 0..2000 {
        let start = Instant::now();
        let revision = store.write(put(n)).await?.0;
        let mut seen = Revision(0);
        while seen < revision {
            seen = match stream.next().await {
                Some(item) => match item? {
                    WatchItem::Progress(r) => r,
                    WatchItem::Events(events) => events.last().map_or(seen, |e| e.revision),
                },
                None => break,
            };
        }
        latencies.add(start.elapsed());
    }
    Ok(row("put and see it in a watch", 1, begin.elapsed().as_secs_f64(), latencies, None))
}

async fn list(store: &Arc<Embedded>, time: Duration) -> Result<Row> {
    let begin = Instant::now();
    let mut latencies = Latencies::default();
    while begin.elapsed() < time {
        let start = Instant::now();
        store.list("/registry/things/", ListOptions { limit: 1000, ..ListOptions::default() }).await?;
        latencies.add(start.elapsed());
    }
    Ok(row("list 1,000 of many", 1, begin.elapsed().as_secs_f64(), latencies, None))
}
