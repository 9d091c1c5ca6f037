//! Fan-out: many watchers of one collection, each on a connection of its own. First as many events as can be delivered, then
//! few enough that the time each takes says something. Two servers take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::connection::{Call, Connection, secured};
use crate::report::{Latencies, Row};
use crate::server::Server;
use crate::{Options, api, load, report};

const WRITERS: usize = 64;
/// Latencies are taken of one watcher in so many.
const SAMPLED: usize = 50;
const READ_BYTES: usize = 32 << 10;
const STAMP: &[u8] = b"\"stamp\":\"";
/// Events to deliver in a second, to all watchers together: more than can be, and the rate that latencies are compared at.
const RATES: [(&str, f64); 2] = [("watch events, as many as can be", 2_000_000.0), ("watch events at 30,000/s", 30_000.0)];
const COLLECTION: &str = "/api/v1/namespaces/bench/configmaps";

pub async fn run(options: &Options) -> Result<()> {
    let servers = Server::all(options).await?;
    let mut fans = Vec::new();
    for server in &servers {
        api::prepare(&mut Connection::open(&server.access).await?, WRITERS).await?;
        fans.push(Fan::open(server, options).await?);
    }
    // The objects that exist come first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    report::head();
    let turns = if servers.len() > 1 { load::TURNS } else { 1 };
    for (what, rate) in RATES {
        servers.iter().zip(&mut fans).for_each(|(server, fan)| fan.begin(server, what));
        for _ in 0..turns {
            for (server, fan) in servers.iter().zip(&mut fans) {
                fan.turn(server, rate, options.duration() / turns).await?;
            }
        }
        servers.iter().zip(&mut fans).for_each(|(server, fan)| fan.end(server, options));
    }
    for mut fan in fans {
        fan.watchers.abort_all();
        while fan.watchers.join_next().await.is_some() {}
    }
    Ok(())
}

/// The watchers of one server, and what was measured of them so far.
struct Fan {
    seen: Arc<Seen>,
    count: usize,
    watchers: JoinSet<Result<()>>,
    writers: Vec<Connection>,
    row: Row,
    written: u64,
}

/// What arrived.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    /// Watches that ended, which none should.
    ended: AtomicU64,
    /// From the write's start to the event's arrival.
    samples: std::sync::Mutex<Latencies>,
}

impl Fan {
    async fn open(server: &Server, options: &Options) -> Result<Self> {
        let mut writers = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            writers.push(Connection::open(&server.access).await?);
        }
        let row = Row::new(&server.name, "", 0);
        let mut fan = Fan { seen: Arc::default(), count: options.watchers, watchers: JoinSet::new(), writers, row, written: 0 };
        for n in 0..options.watchers {
            let mut stream = secured(&server.access).await?;
            let token = server.access.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
            let request = format!("GET {COLLECTION}?watch=true HTTP/1.1\r\nHost: {}\r\n{token}\r\n", server.access.host);
            stream.write_all(request.as_bytes()).await?;
            let mut begin = [0; 12];
            stream.read_exact(&mut begin).await?;
            if !begin.ends_with(b" 200") {
                bail!("a watch answered {}", String::from_utf8_lossy(&begin));
            }
            fan.watchers.spawn(follow(stream, fan.seen.clone(), n % SAMPLED == 0));
        }
        Ok(fan)
    }

    fn begin(&mut self, server: &Server, what: &str) {
        server.forget_peak();
        *self.samples() = Latencies::default();
        (self.row, self.written) = (Row::new(&server.name, what, self.count), 0);
    }

    async fn turn(&mut self, server: &Server, rate: f64, time: Duration) -> Result<()> {
        let seen = self.seen.clone();
        let events = || seen.events.load(Ordering::Relaxed);
        let (before, cpu, begin) = (events(), server.cpu(), Instant::now());
        self.written += write(&mut self.writers, rate / self.count.max(1) as f64, time).await?;
        // Until everything has arrived.
        let mut last = begin.elapsed();
        let mut count = events();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if events() == count {
                break;
            }
            (count, last) = (events(), begin.elapsed());
        }
        let row = &mut self.row;
        row.seconds += last.as_secs_f64();
        row.count = Some(row.count.unwrap_or(0) + count - before);
        let used = cpu.zip(server.cpu()).map(|(before, after)| after.saturating_sub(before));
        row.server_cpu = used.map(|used| used + row.server_cpu.unwrap_or_default());
        Ok(())
    }

    fn end(&mut self, server: &Server, options: &Options) {
        let mut row = std::mem::replace(&mut self.row, Row::new("", "", 0));
        row.server_peak_bytes = server.peak_bytes();
        row.latencies = std::mem::take(&mut *self.samples());
        let due = self.written * self.count as u64;
        row.failures = self.seen.ended.load(Ordering::Relaxed) + due.saturating_sub(row.count.unwrap_or(0));
        report::print(row);
        println!("  {:.0} writes a second by {WRITERS} writers", self.written as f64 / options.duration().as_secs_f64());
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, Latencies> {
        self.seen.samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Patches at a rate, or as fast as the writers can; answers how many.
async fn write(writers: &mut Vec<Connection>, per_second: f64, time: Duration) -> Result<u64> {
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for (writer, mut connection) in std::mem::take(writers).into_iter().enumerate() {
        tasks.spawn(async move {
            let mut written = 0u64;
            let each = Duration::from_secs_f64(WRITERS as f64 / per_second);
            let first = begin + each.mul_f64(writer as f64 / WRITERS as f64);
            for turn in 0u32.. {
                let at = first + each * turn;
                if at.max(Instant::now()) >= begin + time {
                    break;
                }
                tokio::time::sleep_until(at.into()).await;
                let patch = json!({"data": {"stamp": now_us().to_string()}});
                let call = Call::json(Method::PATCH, format!("{COLLECTION}/w{writer}"), &patch);
                connection.text(Call { content_type: "application/merge-patch+json", ..call }, &[]).await?;
                written += 1;
            }
            anyhow::Ok((connection, written))
        });
    }
    let mut all = 0;
    while let Some(ended) = tasks.join_next().await {
        let (connection, written) = ended??;
        writers.push(connection);
        all += written;
    }
    Ok(all)
}

async fn follow(mut stream: impl AsyncRead + Unpin, seen: Arc<Seen>, sampled: bool) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    // A connection that fails has ended as well.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        let bytes = &buffer[..count];
        seen.events.fetch_add(lines(bytes), Ordering::Relaxed);
        if sampled {
            let now = now_us();
            let mut samples = seen.samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            stamps(bytes).for_each(|sent| samples.add(Duration::from_micros(now.saturating_sub(sent))));
        }
    }
    seen.ended.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// An event is a line of its own kind of end; lines of HTTP end with a return before it, which JSON never holds.
fn lines(bytes: &[u8]) -> u64 {
    let count = |end: u8| bytes.iter().filter(|b| **b == end).count() as u64;
    count(b'\n').wrapping_sub(count(b'\r'))
}

/// The stamps in some bytes; one that ends with them may be cut, and does not count.
fn stamps(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let starts = bytes.windows(STAMP.len()).enumerate().filter(|(_, w)| *w == STAMP).map(|(at, _)| at + STAMP.len());
    starts.filter_map(|at| {
        let end = bytes[at..].iter().position(|b| *b == b'"')?;
        std::str::from_utf8(&bytes[at..at + end]).ok()?.parse().ok()
    })
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_that_http_did_not_end() {
        let sent: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n8\r\n{\"a\":1}\n\r\n11\r\n{\"a\":1}\n{\"a\":2}\n\r\n";
        assert_eq!(lines(sent), 3);
        // Wherever it is cut: a return and its line end may come apart.
        for at in 0..sent.len() {
            assert_eq!(lines(&sent[..at]).wrapping_add(lines(&sent[at..])), 3);
        }
    }

    #[test]
    fn every_stamp_counts() {
        let found: Vec<u64> = stamps(br#"{"stamp":"12"} {"stamp":"345"} {"stamp":"17"#).collect();
        assert_eq!(found, [12, 345]);
        assert_eq!(stamps(b"none").count(), 0);
    }
}
