//! Fan-out: many watchers of one collection, each on a connection of its own, and a few writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::load::{self, MakeCall};
use crate::report::{Latencies, Row};
use crate::server::Server;
use crate::{Options, api, report};

const WRITERS: usize = 8;
/// Latencies are taken of one watcher in so many.
const SAMPLED: usize = 50;
const STAMP: &[u8] = b"\"stamp\":\"";

pub async fn run(options: &Options) -> Result<()> {
    let server = Server::get(options).await?;
    let mut admin = Connection::open(&server.access).await?;
    api::prepare(&mut admin, WRITERS).await?;
    let received = Arc::new(AtomicU64::new(0));
    let mut watchers = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3600);
    for n in 0..options.watchers {
        let mut connection = Connection::open(&server.access).await?;
        let call = Call::get("/api/v1/namespaces/bench/configmaps?watch=true");
        let response = connection.send(call).await?;
        if !response.status().is_success() {
            bail!("a watch answered {}", response.status());
        }
        watchers.spawn(follow(connection, response.into_body(), received.clone(), n % SAMPLED == 0, until));
    }
    // The objects that exist come first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    report::head();
    let before = (received.load(Ordering::Relaxed), server.cpu());
    let write: MakeCall = Arc::new(|worker, _| {
        let body = json!({"data": {"stamp": now_us().to_string()}});
        Call {
            content_type: "application/merge-patch+json",
            ..Call::json(Method::PATCH, format!("/api/v1/namespaces/bench/configmaps/w{worker}"), &body)
        }
    });
    let row = load::run(&server, "merge-patch under watch", WRITERS, options.duration(), write).await?;
    let (seconds, peak) = (row.seconds, row.server_peak_bytes);
    report::print(row);
    // Until everything has arrived.
    let mut count = received.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = received.load(Ordering::Relaxed);
        if now == count {
            break;
        }
        count = now;
    }
    let cpu = before.1.zip(server.cpu()).map(|(before, after)| after.saturating_sub(before));
    let mut latencies = Latencies::default();
    watchers.abort_all();
    for sample in SAMPLES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain(..) {
        latencies.add(sample);
    }
    report::print(Row {
        operation: "watch events delivered".into(),
        concurrency: options.watchers,
        seconds,
        latencies,
        count: Some(count - before.0),
        failures: 0,
        server_cpu: cpu,
        server_peak_bytes: peak,
    });
    while watchers.join_next().await.is_some() {}
    Ok(())
}

/// From the write's start to the event's arrival.
static SAMPLES: std::sync::Mutex<Vec<Duration>> = std::sync::Mutex::new(Vec::new());

async fn follow(
    _connection: Connection,
    mut body: hyper::body::Incoming,
    received: Arc<AtomicU64>,
    sampled: bool,
    until: Instant,
) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(bytes) = frame.data_ref() else { continue };
        // An event is a line; a line may come in parts, its end comes once.
        let lines = bytes.iter().filter(|b| **b == b'\n').count() as u64;
        received.fetch_add(lines, Ordering::Relaxed);
        if sampled && let Some(sent_us) = stamp(bytes) {
            let mut samples = SAMPLES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            samples.push(Duration::from_micros(now_us().saturating_sub(sent_us)));
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(())
}

/// The last stamp in some bytes.
fn stamp(bytes: &[u8]) -> Option<u64> {
    let at = bytes.windows(STAMP.len()).rposition(|w| w == STAMP)? + STAMP.len();
    let digits = bytes[at..].split(|b| !b.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stamp_counts() {
        assert_eq!(stamp(br#"{"stamp":"12"} {"stamp":"345"}"#), Some(345));
        assert_eq!(stamp(b"none"), None);
    }
}
