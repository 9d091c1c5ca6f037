//! `skiff down` and `skiff delete`: nothing of the cluster is left on the machine but its data; then not even that.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use network::NetNs;
use nix::sys::signal::Signal;

use crate::instance::{Dirs, Instance};
use crate::kubeconfig;
use crate::progress::Steps;
use crate::supervisor::Report;

/// A little more than the supervisor gives its children.
const SUPERVISOR_WAIT: Duration = Duration::from_secs(25);

/// Ends the supervisor with all it supervises. Pods keep running.
pub fn stop_supervisor(dirs: &Dirs) -> Result<()> {
    let Some(report) = Report::read(dirs) else { return Ok(()) };
    report.supervisor.signal(Signal::SIGTERM)?;
    if !report.supervisor.wait_gone(SUPERVISOR_WAIT) {
        report.supervisor.signal(Signal::SIGKILL)?;
        report.supervisor.wait_gone(Duration::from_secs(5));
    }
    for (name, child) in &report.children {
        if let Some(process) = child.process.filter(crate::process::Identity::alive) {
            process.signal(Signal::SIGKILL)?;
            if !process.wait_gone(Duration::from_secs(5)) {
                bail!("{name} (process {}) does not end: look at its state in /proc/{}/status", process.pid, process.pid);
            }
        }
    }
    Ok(())
}

pub fn run(dirs: &Dirs) -> Result<()> {
    let Some(instance) = dirs.load()? else {
        println!("No cluster lives in {}.", dirs.data.display());
        return Ok(());
    };
    let steps = Steps::new();
    stop(dirs, &instance, &steps)?;
    println!("The cluster is stopped. `skiff up` brings it back with its workloads; `skiff delete` removes its data.");
    Ok(())
}

fn stop(dirs: &Dirs, instance: &Instance, steps: &Steps) -> Result<()> {
    let step = steps.begin("stopping the control plane");
    stop_supervisor(dirs)?;
    step.done();
    let step = steps.begin("stopping pods");
    // The nodes there were, even where the number has since been changed.
    for name in nodes_on_disk(dirs)? {
        crate::daemon::teardown_node(dirs, instance, &name)?;
    }
    step.done();
    let step = steps.begin("removing links, routes and rules");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let net = network::Instance::new(&instance.id);
        let host = NetNs::current()?;
        for name in nodes_on_disk(dirs)? {
            network::NodeNamespace::remove(&net, &host, &dirs.run, &name).await?;
        }
        network::teardown(&net, &host).await.context("removing the cluster's links and rules")
    })?;
    match fs::remove_dir_all(&dirs.run) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", dirs.run.display()))?,
        _ => {}
    }
    step.done();
    Ok(())
}

fn nodes_on_disk(dirs: &Dirs) -> Result<Vec<String>> {
    let dir = dirs.data.join("nodes");
    match fs::read_dir(&dir) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", dir.display())),
    }
}

pub fn delete(dirs: &Dirs) -> Result<()> {
    // Data that cannot be read is still removed, but only where it is plainly a cluster's.
    let instance = match dirs.load() {
        Ok(Some(instance)) => instance,
        Ok(None) => {
            println!("No cluster lives in {}.", dirs.data.display());
            return Ok(());
        }
        Err(error) => return Err(error.context(format!("remove {} by hand if you are sure", dirs.data.display()))),
    };
    let steps = Steps::new();
    stop(dirs, &instance, &steps)?;
    let step = steps.begin("removing the data");
    let path = kubeconfig::path()?;
    if kubeconfig::server_of(&path, &instance.context)?.is_some_and(|s| s == instance.server()) {
        kubeconfig::remove(&path, &instance.context)?;
    }
    fs::remove_dir_all(&dirs.data).with_context(|| format!("removing {}", dirs.data.display()))?;
    step.done();
    match &instance.etcd {
        None => println!("The cluster and its data are gone."),
        // Others may have objects under that prefix; and a slip of the hand must not empty a shared cluster.
        Some(cluster) => println!(
            "The cluster is gone from this machine. Its objects stay in {cluster}: `skiff up` with the same --etcd-servers takes them up again,\n\
             and `etcdctl del --prefix {}/` removes them, with those of every other API server that uses this prefix.",
            cluster.prefix
        ),
    }
    Ok(())
}
