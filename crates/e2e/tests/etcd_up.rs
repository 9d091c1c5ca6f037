//! `skiff up` over an etcd cluster: what it remembers, what it refuses, what a watch misses over a restart (nothing), and that
//! nothing but a person empties etcd.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::fleet::{etcd as program, with_etcd};
use e2e::{Cluster, eventually};
use serde_json::{Value, json};
use store::{ListOptions, Store as _};

const URL: &str = "http://127.0.0.1:2379";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A member alone, in the cluster's namespace.
struct Member(Child);

impl Member {
    fn start(cluster: &Cluster, namespace: &network::NetNs) -> Result<Self> {
        let mut command = Command::new(program());
        command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL, "--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.arg("--data-dir").arg(cluster.dir().join("etcd")).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Member(namespace.run(|| command.spawn())??))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("etcd could not be ended: {error}");
        }
    }
}

fn keys(cluster: &Cluster, prefix: &str) -> Result<u64> {
    let options = etcd::Options { prefix: prefix.into(), ..etcd::Options::new([URL]) };
    cluster.run_async(|_| async move {
        let store = etcd::Etcd::connect(options).await?;
        Ok(store.list("/registry/", ListOptions { limit: 1, ..ListOptions::default() }).await?.count)
    })?
}

fn create(cluster: &Cluster, name: &str) -> Result<u64> {
    let made = cluster.request("POST", MAPS, Some(&json!({"metadata": {"name": name, "labels": {"test": "1"}}})))?;
    Ok(made["metadata"]["resourceVersion"].as_str().context("a revision")?.parse()?)
}

/// What a watch from a revision shows, as kind and name.
fn watched(cluster: &Cluster, after: u64) -> Result<Vec<String>> {
    let path = format!("{MAPS}?watch=1&timeoutSeconds=2&labelSelector=test%3D1&resourceVersion={after}");
    let text = cluster.with_client(|client| async move { Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?) })?;
    let line = |line: &str| -> Result<String> {
        let event: Value = serde_json::from_str(line)?;
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("?");
        Ok(format!("{} {name}", event["type"].as_str().unwrap_or("?")))
    };
    text.lines().map(line).collect()
}

fn over_etcd() -> Result<()> {
    let cluster = Cluster::place()?;
    let refused = cluster.skiff(&["up", "--etcd-servers", URL])?;
    ensure!(!refused.success && refused.stderr.contains(URL), "{refused:?}");
    let member = Member::start(&cluster, &cluster.run_async(|netns| async move { netns })?)?;
    // It remembers where.
    cluster.skiff(&["up"])?.ok().context(cluster.log())?;
    ensure!(!cluster.data_dir().join("store").exists(), "an embedded datastore was made");
    let status = cluster.skiff(&["status"])?.ok()?;
    ensure!(status.contains(&format!("etcd at {URL} under /registry")), "{status}");
    let refused = cluster.skiff(&["up", "--etcd-servers", URL, "--etcd-prefix", "/other"])?;
    ensure!(!refused.success && refused.stderr.contains("another cluster"), "{refused:?}");
    one_for_each_prefix(&cluster)?;
    let refused = cluster.skiff(&["datastore", "compact"])?;
    ensure!(!refused.success && refused.stderr.contains("etcd"), "{refused:?}");

    let first = create(&cluster, "a")?;
    create(&cluster, "b")?;
    cluster.request("DELETE", &format!("{MAPS}/a"), None)?;
    create(&cluster, "c")?;
    let all = ["ADDED b", "DELETED a", "ADDED c"];
    // The daemon dies; its supervisor starts it again.
    let before = cluster.process("daemon")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), nix::sys::signal::Signal::SIGKILL)?;
    eventually("another daemon answers", || {
        ensure!(cluster.process("daemon")? != before, "the same");
        cluster.get("/readyz/ping").map(drop).or_else(|_| cluster.get(MAPS).map(drop))
    })?;
    ensure!(watched(&cluster, first)? == all, "after kill -9: {:?}", watched(&cluster, first)?);

    let file = cluster.dir().join("all.snapshot");
    let said = cluster.skiff(&["datastore", "snapshot", file.to_str().unwrap()])?.ok()?;
    ensure!(said.contains(" keys"), "{said}");
    let (elsewhere, place) = (cluster.dir().join("elsewhere"), cluster.dir().join("elsewhere-run"));
    let place = ["--data-dir", elsewhere.to_str().unwrap(), "--run-dir", place.to_str().unwrap()];
    let restored = cluster.skiff(&[&["datastore", "restore", file.to_str().unwrap()], &place[..]].concat())?.ok()?;
    ensure!(restored.contains("leases"), "{restored}");

    cluster.skiff(&["down"])?.ok()?;
    cluster.skiff(&["up"])?.ok().context(cluster.log())?;
    ensure!(watched(&cluster, first)? == all, "after down and up: {:?}", watched(&cluster, first)?);

    let there = keys(&cluster, "/registry")?;
    let said = cluster.skiff(&["delete"])?.ok()?;
    ensure!(said.contains("objects stay in etcd") && !cluster.data_dir().exists(), "{said}");
    ensure!(there > 50 && keys(&cluster, "/registry")? > there / 2, "delete took what is in etcd");
    let said = cluster.skiff(&["up", "--etcd-servers", URL])?.ok().context(cluster.log())?;
    ensure!(said.contains("goes on with those objects"), "{said}");
    ensure!(cluster.get(&format!("{MAPS}/c")).is_ok(), "the objects are not there");
    cluster.skiff(&["delete"])?.ok()?;
    moved(&cluster)?;
    drop(member);
    Ok(())
}

/// A second local cluster is told who has the prefix, remembers nothing of it, and lives under another one.
fn one_for_each_prefix(cluster: &Cluster) -> Result<()> {
    let second = cluster.beside()?;
    let refused = second.skiff(&["up", "--etcd-servers", URL])?;
    let told = format!("another local cluster ({}) runs on", cluster.id()?);
    ensure!(!refused.success && refused.stderr.contains(&told), "{refused:?}");
    second.skiff(&["up", "--etcd-servers", URL, "--etcd-prefix", "/second"])?.ok().context(second.log())?;
    create(&second, "second")?;
    ensure!(cluster.get(&format!("{MAPS}/second")).is_err(), "two clusters share objects");
    second.skiff(&["delete"])?.ok().map(drop)
}

/// From the embedded datastore to etcd.
fn moved(cluster: &Cluster) -> Result<()> {
    cluster.skiff(&["up"])?.ok().context(cluster.log())?;
    create(cluster, "mine")?;
    cluster.skiff(&["down"])?.ok()?;
    let refused = cluster.skiff(&["up", "--etcd-servers", URL, "--etcd-prefix", "/moved"])?;
    ensure!(!refused.success && refused.stderr.contains("migrate"), "{refused:?}");
    let said = cluster.skiff(&["datastore", "migrate", "--to", "etcd", "--etcd-servers", URL, "--etcd-prefix", "/moved"])?.ok()?;
    ensure!(said.contains("etcd at"), "{said}");
    cluster.skiff(&["up"])?.ok().context(cluster.log())?;
    ensure!(cluster.get(&format!("{MAPS}/mine")).is_ok() && keys(cluster, "/moved")? > 50, "the objects are not there");
    Ok(())
}

#[test]
fn a_local_cluster_lives_over_etcd() {
    with_etcd(over_etcd);
}
