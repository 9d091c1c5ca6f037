//! A million objects: what each costs in memory and on disk, and what reading and starting take then.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::api::{CORE, NAMESPACE};
use crate::connection::{Call, Connection};
use crate::load::{self, MakeCall};
use crate::report::{self, Row, mib};
use crate::server::{Server, data_dir};
use crate::{Options, fill};

const WRITES: usize = 200;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const QUIET_MAX: Duration = Duration::from_secs(120);

pub async fn run(options: &Options) -> Result<()> {
    let (dir, _temporary) = data_dir(options)?;
    for resource in ["configmaps", "pods"] {
        if options.only.as_deref().is_some_and(|only| !resource.contains(only)) {
            continue;
        }
        of(options, &dir.join(resource), resource).await?;
        std::fs::remove_dir_all(dir.join(resource))?;
    }
    Ok(())
}

async fn of(options: &Options, dir: &Path, resource: &str) -> Result<()> {
    if dir.join("store").exists() {
        bail!("{} holds a store already: what is in it would count as well", dir.display());
    }
    let (template, empty) = {
        let server = Server::start(options, dir).await?;
        let mut admin = Connection::open(&server.access).await?;
        let template = if resource == "pods" { fill::pod(&mut admin).await? } else { fill::config_map(&mut admin).await? };
        (template, server.own_bytes().unwrap_or(0))
    };
    let (count, bytes) = (options.objects, template.bytes());
    let begin = Instant::now();
    fill::store(&dir.join("store"), fill::named(template, count)).await?;
    println!("{count} {resource} of {bytes} bytes; written to the engine in {:.1} s", begin.elapsed().as_secs_f64());
    println!("  on disk {:.0} MiB", mib(size(&dir.join("store"))?));
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/{resource}");
    for after in ["the log", "a stop"] {
        let server = Server::start(options, dir).await?;
        let begin = Instant::now();
        first_page(&server, &collection).await?;
        let (ready, first) = (server.started_in, server.started_in + begin.elapsed());
        let quiet = server.started_in + quiet(&server, begin).await?;
        println!(
            "  start after {after}: ready after {:.2} s, a first page of 500 listed after {:.2} s, quiet after {:.1} s",
            ready.as_secs_f64(),
            first.as_secs_f64(),
            quiet.as_secs_f64()
        );
        if after == "a stop" {
            let held = server.own_bytes().unwrap_or(0);
            println!(
                "  memory {:.0} MiB, at its peak {:.0} MiB: {:.0} bytes an object over its own {bytes}; on disk {:.0} MiB",
                mib(held),
                mib(server.peak_bytes().unwrap_or(0)),
                held.saturating_sub(empty) as f64 / count as f64 - bytes as f64,
                mib(size(&dir.join("store"))?)
            );
            reads(options, server, &collection).await?;
        }
    }
    Ok(())
}

/// Waits until a server has done what its start asks of it; answers for how long it was busy.
async fn quiet(server: &Server, begin: Instant) -> Result<Duration> {
    let mut busy = begin.elapsed();
    while begin.elapsed() < QUIET_MAX {
        let before = server.cpu().unwrap_or_default();
        tokio::time::sleep(LOOK_EVERY).await;
        if server.cpu().unwrap_or_default() < before + LOOK_EVERY / 10 {
            break;
        }
        busy = begin.elapsed();
    }
    Ok(busy)
}

/// Waits for the first page: a server whose cache takes longer to fill than a request waits answers 429, and to come again.
async fn first_page(server: &Server, collection: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut connection = Connection::open(&server.access).await?;
    loop {
        match connection.text(Call::get(format!("{collection}?limit=500")), &[]).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn reads(options: &Options, server: Server, collection: &str) -> Result<()> {
    report::head();
    let servers = [server];
    let call = |path: String| -> MakeCall { Arc::new(move |_, _| Call::get(path.clone())) };
    let page = call(format!("{collection}?limit=500"));
    for (what, connections, make) in [
        ("GET one", options.connections, call(format!("{collection}/o0000001"))),
        ("LIST a page of 500", 8, page.clone()),
        ("LIST one by its name", 8, call(format!("{collection}?fieldSelector=metadata.name%3Do0000001"))),
        ("LIST all of them", 1, call(collection.to_owned())),
    ] {
        load::measure(&servers, what, connections, options.duration(), make).await?;
    }
    let [server] = &servers;
    report::print(watch(server, collection, "write and see it in a watch").await?);
    let asked = [(server, "LIST a page of 500, meanwhile", page)];
    let loaded = watch(server, collection, "the same, beside readers");
    let (row, readers) = tokio::try_join!(loaded, load::compare(&asked, 8, options.duration()))?;
    report::print(row);
    readers.into_iter().for_each(report::print);
    Ok(())
}

/// From a write's start until a watch has it, one after the other.
async fn watch(server: &Server, collection: &str, what: &str) -> Result<Row> {
    let mut admin = Connection::open(&server.access).await?;
    let list = admin.text(Call::get(format!("{collection}?limit=1")), &[]).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut watcher = Connection::open(&server.access).await?;
    let response = watcher.send(Call::get(format!("{collection}?watch=true&resourceVersion={version}"))).await?;
    if !response.status().is_success() {
        bail!("a watch answered {}", response.status());
    }
    let mut body = response.into_body();
    let mut row = Row::new(&server.name, what, 1);
    for n in 0..WRITES {
        let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}});
        let call = Call::json(Method::PATCH, format!("{collection}/o0000002"), &patch);
        let begin = Instant::now();
        admin.text(Call { content_type: "application/merge-patch+json", ..call }, &[]).await?;
        while let Some(frame) = body.frame().await {
            if frame?.data_ref().is_some_and(|b| b.ends_with(b"\n")) {
                break;
            }
        }
        row.latencies.add(begin.elapsed());
        row.seconds += begin.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(row)
}

/// Of all files in a directory.
fn size(dir: &Path) -> Result<u64> {
    let mut all = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        all += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(all)
}
