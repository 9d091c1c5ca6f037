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

pub async fn run(options: &Options) -> Result<()> {
    let (dir, _temporary) = data_dir(options)?;
    for resource in ["configmaps", "pods"] {
        of(options, &dir.join(resource), resource).await?;
        std::fs::remove_dir_all(dir.join(resource))?;
    }
    Ok(())
}

async fn of(options: &Options, dir: &Path, resource: &str) -> Result<()> {
    let (template, empty) = {
        let server = Server::start(options, dir).await?;
        let mut admin = Connection::open(&server.access).await?;
        let template = if resource == "pods" { fill::pod(&mut admin).await? } else { fill::config_map(&mut admin).await? };
        (template, server.pss_bytes().unwrap_or(0))
    };
    let (count, bytes) = (options.objects, template.bytes());
    let begin = Instant::now();
    fill::store(&dir.join("store"), fill::named(template, count)).await?;
    println!("{count} {resource} of {bytes} bytes; written to the engine in {:.1} s", begin.elapsed().as_secs_f64());
    let server = Server::start(options, dir).await?;
    let first = server.started_in;
    drop(server);
    let server = Server::start(options, dir).await?;
    let held = server.pss_bytes().unwrap_or(0);
    println!(
        "  start {:.2} s after the log, {:.2} s after a stop; on disk {:.0} MiB; memory {:.0} MiB, {:.0} bytes an object over its own {bytes}",
        first.as_secs_f64(),
        server.started_in.as_secs_f64(),
        mib(size(&dir.join("store"))?),
        mib(held),
        held.saturating_sub(empty) as f64 / count as f64 - bytes as f64,
    );
    report::head();
    let servers = [server];
    let collection = format!("{CORE}/namespaces/{NAMESPACE}/{resource}");
    let call = |path: String| -> MakeCall { Arc::new(move |_, _| Call::get(path.clone())) };
    let one = call(format!("{collection}/o0000001"));
    load::measure(&servers, "GET one", options.connections, options.duration(), one).await?;
    load::measure(&servers, "LIST a page of 500", 8, options.duration(), call(format!("{collection}?limit=500"))).await?;
    load::measure(
        &servers,
        "LIST one by its name",
        8,
        options.duration(),
        call(format!("{collection}?fieldSelector=metadata.name%3Do0000001")),
    )
    .await?;
    load::measure(&servers, "LIST all of them", 1, options.duration(), call(collection.clone())).await?;
    report::print(watch(&servers[0], &collection).await?);
    Ok(())
}

/// From a write's start until a watch has it, one after the other.
async fn watch(server: &Server, collection: &str) -> Result<Row> {
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
    let mut row = Row::new(&server.name, "write and see it in a watch", 1);
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
