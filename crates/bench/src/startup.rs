//! How long a server takes to be ready, and what it uses when idle.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::Options;
use crate::report::{self, Latencies, Row};
use crate::server::{Server, data_dir};

const RUNS: usize = 5;

/// Starts on an empty directory, and again on one with data, each some times.
pub async fn start(options: &Options) -> Result<()> {
    if options.kubeconfig.is_some() {
        bail!("only a server of our own can be started");
    }
    let (dir, _temporary) = data_dir(options)?;
    report::head();
    for again in [false, true] {
        let mut latencies = Latencies::default();
        let mut peak = None;
        for run in 0..RUNS {
            let server = Server::start(options, &dir.join(if again { "0".to_owned() } else { run.to_string() })).await?;
            latencies.add(server.started_in);
            peak = server.peak_bytes();
        }
        report::print(Row {
            operation: if again { "start to /readyz, again" } else { "start to /readyz, first" }.into(),
            concurrency: 1,
            seconds: 1.0,
            latencies,
            count: Some(RUNS as u64),
            failures: 0,
            server_cpu: None,
            server_peak_bytes: peak,
        });
    }
    Ok(())
}

pub async fn memory(options: &Options) -> Result<()> {
    let server = Server::get(options).await?;
    if server.is_own() {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let before = server.cpu();
    tokio::time::sleep(options.duration()).await;
    let (Some(pss), Some(peak), Some(before), Some(after)) = (server.pss_bytes(), server.peak_bytes(), before, server.cpu()) else {
        bail!("what the server uses cannot be read; name its process with --pid");
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let cores = after.saturating_sub(before).as_secs_f64() / options.duration().as_secs_f64();
    println!("idle: PSS {:.1} MiB, peak RSS {:.1} MiB, CPU {:.2}% of a core", mib(pss), mib(peak), cores * 100.0);
    Ok(())
}
