//! GET and LIST, beside what a bare server and a bare TLS stream reach in the same minute. Called by `api`, or alone.

use std::sync::Arc;

use anyhow::{Result, bail};

use crate::api::{CORE, NAMESPACE, PODS};
use crate::bare::Bare;
use crate::connection::{Call, Connection};
use crate::load::{self, MakeCall};
use crate::server::Server;
use crate::{Options, report};

const READERS: [usize; 3] = [1, 16, 256];

pub async fn run(servers: &[Server], options: &Options) -> Result<()> {
    let bare = Bare::start()?;
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    if wanted("GET a ConfigMap") {
        let map = format!("{CORE}/namespaces/{NAMESPACE}/configmaps/w0");
        for connections in [1, options.connections] {
            beside(servers, &bare.hyper, "GET a ConfigMap", &map, connections, options).await?;
        }
    }
    let pods = format!("{CORE}/namespaces/{NAMESPACE}/pods");
    if wanted("LIST 1,000 pods") {
        beside(servers, &bare.stream, "LIST 1,000 pods", &pods, 8, options).await?;
    }
    if wanted("LIST memory") {
        for readers in READERS {
            let list = pods.clone();
            let list: MakeCall = Arc::new(move |_, _| Call::get(list.clone()));
            load::measure(servers, "LIST memory", readers, options.duration(), list).await?;
        }
    }
    Ok(())
}

/// Each server asked for a path, and a bare one for as many bytes as the first one's answer has.
async fn beside(servers: &[Server], bare: &Server, what: &str, path: &str, connections: usize, options: &Options) -> Result<()> {
    let Some(first) = servers.first() else { return Ok(()) };
    let (status, bytes) = Connection::open(&first.access).await?.count(Call::get(path)).await?;
    if status != 200 {
        bail!("GET {path} answered {status}; {PODS} pods should be there");
    }
    let get = |path: String| -> MakeCall { Arc::new(move |_, _| Call::get(path.clone())) };
    let mut asked: Vec<_> = servers.iter().map(|s| (s, what, get(path.to_owned()))).collect();
    asked.push((bare, what, get(format!("/{bytes}"))));
    let mut rows = load::compare(&asked, connections, options.duration()).await?;
    let mut ratio = None;
    if let [ours, .., floor] = &mut rows[..] {
        ours.latencies.sort();
        floor.latencies.sort();
        let p50 = ours.latencies.at(0.5).as_secs_f64() / floor.latencies.at(0.5).as_secs_f64().max(1e-9);
        let cpu = ours.cpu_per_operation() / floor.cpu_per_operation().max(1e-9);
        let rate = ours.per_second() / floor.per_second() * 100.0;
        ratio = Some(format!(
            "  {what}, {connections} connections, {bytes} bytes: {rate:.0}% of the rate of {}, p50 {p50:.2} times, CPU {cpu:.2} times as much",
            floor.server
        ));
    }
    rows.into_iter().for_each(report::print);
    if let Some(ratio) = ratio {
        println!("{ratio}");
    }
    Ok(())
}
