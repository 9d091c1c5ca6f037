//! Snapshots of etcd on a schedule, as two API servers over one etcd cluster take them: while a member is dead, not without a
//! quorum, again afterwards; only so many are kept; and each is whole: an embedded datastore is made of one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::eventually;
use e2e::fleet::{Fleet, with_etcd};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const KEPT: usize = 3;

fn data(fleet: &Fleet, at: usize) -> PathBuf {
    fleet.dir().join(format!("api{at}"))
}

fn run_api(fleet: &mut Fleet, at: usize) -> Result<()> {
    let (data, mut urls) = (data(fleet, at), Fleet::etcd_urls());
    urls.rotate_left(at);
    fleet.start_api(at, &Fleet::address(at), &data, |command| {
        command.args(["--etcd-servers", &urls.join(",")]);
        command.args(["--datastore-snapshot-schedule-cron", "@every 1s", "--datastore-snapshot-retention", &KEPT.to_string()]);
    })
}

/// Finished snapshots, oldest first.
fn snapshots(fleet: &Fleet, at: usize) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(data(fleet, at).join("snapshots")) else { return Ok(Vec::new()) };
    let mut all = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    all.retain(|path| path.extension().is_some_and(|e| e == "snapshot"));
    all.sort();
    Ok(all)
}

/// Waits for some new ones; answers the newest, which was begun after now.
fn more(fleet: &Fleet, at: usize, what: &str) -> Result<PathBuf> {
    let mut seen: BTreeSet<PathBuf> = snapshots(fleet, at)?.into_iter().collect();
    let (before, mut newest) = (seen.len(), None);
    eventually(what, || {
        let all = snapshots(fleet, at)?;
        // One more for a moment, while the oldest is removed.
        ensure!(all.len() <= KEPT + 1, "{} are kept", all.len());
        newest = all.last().cloned();
        seen.extend(all);
        let new = seen.len() - before;
        if new > 2 { Ok(()) } else { bail!("{new} new ones; {}", fleet.log(at, "api")) }
    })?;
    newest.context("a snapshot")
}

fn names(list: &Value) -> BTreeSet<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|i| i["metadata"]["name"].as_str().filter(|name| name.starts_with("c-")).map(str::to_owned)).collect()
}

fn skiff(arguments: &[&str], file: &Path, data: &Path) -> Result<String> {
    let output = Command::new(e2e::skiff()).args(arguments).arg(file).env("SKIFF_DATA_DIR", data).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn on_schedule() -> Result<()> {
    let mut fleet = Fleet::start()?;
    run_api(&mut fleet, 0)?;
    let to = data(&fleet, 1).join("pki");
    std::fs::create_dir_all(&to)?;
    for name in ["ca.crt", "ca.key", "sa.key"] {
        std::fs::copy(data(&fleet, 0).join("pki").join(name), to.join(name))?;
    }
    run_api(&mut fleet, 1)?;
    let mut made = BTreeSet::new();
    let mut create = |fleet: &Fleet, name: &str| -> Result<()> {
        made.insert(name.to_owned());
        let object = json!({ "metadata": { "name": name } });
        eventually("an object is made", || fleet.request(0, &data(fleet, 0), "POST", MAPS, Some(&object)).map(drop))
    };
    for n in 0..100 {
        create(&fleet, &format!("c-{n}"))?;
    }
    for at in 0..2 {
        more(&fleet, at, "each server takes snapshots")?;
    }
    fleet.kill(0, "etcd")?;
    create(&fleet, "c-one-dead")?;
    more(&fleet, 0, "snapshots with a dead member")?;
    fleet.kill(1, "etcd")?;
    eventually("a snapshot fails without a quorum", || {
        ensure!(fleet.said(0, "api").contains("taking a snapshot of the datastore in"), "{}", fleet.log(0, "api"));
        Ok(())
    })?;
    ensure!(snapshots(&fleet, 0)?.len() >= KEPT, "a failed one has taken others along");
    for at in 0..2 {
        fleet.run_etcd(at)?;
    }
    create(&fleet, "c-after")?;
    let file = more(&fleet, 0, "snapshots with a quorum again")?;
    let (kept, alone) = (fleet.dir().join("kept"), fleet.dir().join("alone"));
    std::fs::copy(&file, &kept)?;
    skiff(&["datastore", "check"], &kept, &alone)?;
    skiff(&["datastore", "restore"], &kept, &alone)?;
    fleet.start_api(2, &Fleet::address(2), &alone, |_| ())?;
    let there = names(&fleet.request(2, &alone, "GET", MAPS, None)?);
    ensure!(there == made, "missing: {:?}; too many: {:?}", made.difference(&there), there.difference(&made));
    Ok(())
}

#[test]
fn etcd_is_kept_in_snapshots_on_schedule() {
    with_etcd(on_schedule);
}
