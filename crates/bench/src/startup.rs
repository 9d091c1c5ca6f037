//! How long a server takes to be ready: with nothing there, with keys alone, and with many objects.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Options;
use crate::connection::Connection;
use crate::fill;
use crate::report::{self, Row};
use crate::server::{Server, data_dir};

const RUNS: usize = 5;
const OBJECTS: usize = 100_000;

pub async fn start(options: &Options) -> Result<()> {
    if options.kubeconfig.is_some() {
        bail!("only a server of our own can be started");
    }
    let (dir, _temporary) = data_dir(options)?;
    report::head();
    let mut row = Row::new("skiff", "start fresh, making keys", 1);
    for run in 0..RUNS {
        note(&mut row, &Server::start(options, &dir.join(run.to_string())).await?);
    }
    report::print(row);
    let kept = dir.join("0");
    let mut row = Row::new("skiff", "start fresh, keys given", 1);
    for _ in 0..RUNS {
        std::fs::remove_dir_all(kept.join("store"))?;
        note(&mut row, &Server::start(options, &kept).await?);
    }
    report::print(row);
    report::print(again(options, &kept, "start again, a new cluster").await?);
    objects(options, &kept).await?;
    report::print(again(options, &kept, "start again, 100,000 objects").await?);
    Ok(())
}

async fn again(options: &Options, dir: &Path, what: &str) -> Result<Row> {
    let mut row = Row::new("skiff", what, 1);
    for _ in 0..RUNS {
        note(&mut row, &Server::start(options, dir).await?);
    }
    Ok(row)
}

/// Half of them pods of a busy cluster's size, half ConfigMaps.
async fn objects(options: &Options, dir: &Path) -> Result<()> {
    let (map, pod) = {
        let server = Server::start(options, dir).await?;
        let mut admin = Connection::open(&server.access).await?;
        (fill::config_map(&mut admin).await?, fill::pod(&mut admin).await?)
    };
    let (maps, pods) = (fill::named(map, OBJECTS / 2), fill::named(pod, OBJECTS / 2));
    fill::store(&dir.join("store"), maps.chain(pods)).await
}

fn note(row: &mut Row, server: &Server) {
    row.latencies.add(server.started_in);
    row.seconds += server.started_in.as_secs_f64();
    row.server_cpu = server.cpu().map(|cpu| cpu + row.server_cpu.unwrap_or(Duration::ZERO));
    row.server_peak_bytes = row.server_peak_bytes.max(server.peak_bytes());
}
