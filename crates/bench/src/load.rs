//! A closed loop: so many workers, each with a connection of its own and one request at a time, for so long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::connection::{Call, Connection};
use crate::report::{Latencies, Row};
use crate::server::Server;

/// Makes the n-th call of a worker.
pub type MakeCall = Arc<dyn Fn(usize, u64) -> Call + Send + Sync>;

pub async fn run(server: &Server, operation: &str, workers: usize, time: Duration, make: MakeCall) -> Result<Row> {
    let mut connections = Vec::with_capacity(workers);
    for _ in 0..workers {
        connections.push(Connection::open(&server.access).await?);
    }
    let cpu = server.cpu();
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for (worker, connection) in connections.into_iter().enumerate() {
        tasks.spawn(work(worker, connection, begin + time, make.clone()));
    }
    let (mut latencies, mut failures) = (Latencies::default(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (of_worker, failed) = ended??;
        latencies.merge(of_worker);
        failures += failed;
    }
    Ok(Row {
        operation: operation.to_owned(),
        concurrency: workers,
        seconds: begin.elapsed().as_secs_f64(),
        latencies,
        count: None,
        failures,
        server_cpu: cpu.zip(server.cpu()).map(|(before, after)| after.saturating_sub(before)),
        server_peak_bytes: server.peak_bytes(),
    })
}

async fn work(worker: usize, mut connection: Connection, until: Instant, make: MakeCall) -> Result<(Latencies, u64)> {
    let (mut latencies, mut failures) = (Latencies::default(), 0);
    for n in 0.. {
        let call = make(worker, n);
        let begin = Instant::now();
        if begin >= until {
            break;
        }
        let (status, _) = connection.count(call).await?;
        if (200..300).contains(&status) {
            latencies.add(begin.elapsed());
        } else {
            failures += 1;
        }
    }
    Ok((latencies, failures))
}
