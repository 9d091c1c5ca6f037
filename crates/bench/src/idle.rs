//! What a control plane uses when nobody asks it for anything.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::report::mib;
use crate::server::{self, Process, Server, data_dir, pss_bytes, spawn};

/// Until controllers have done what a new cluster asks of them.
const SETTLE: Duration = Duration::from_secs(8);

pub async fn memory(options: &Options) -> Result<()> {
    if options.kubeconfig.is_some() {
        let servers = Server::all(options).await?;
        let pids: Vec<_> = servers.iter().filter_map(|s| Some((s.name.as_str(), s.pid()?))).collect();
        if pids.len() < servers.len() {
            bail!("what the server uses cannot be read; name its process with --pid");
        }
        return watch(&pids, options.duration()).await;
    }
    let (dir, _temporary) = data_dir(options)?;
    let server = Server::start(options, &dir.join("apiserver")).await?;
    let api = server.pid().context("the server has no process")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("the API server alone:");
    watch(&[("kube-apiserver", api)], options.duration() / 4).await?;
    let (manager, scheduler) = components(options, &dir)?;
    tokio::time::sleep(SETTLE).await;
    println!("the whole control plane, three processes:");
    let all = [("kube-apiserver", api), ("kube-controller-manager", manager.0.id()), ("kube-scheduler", scheduler.0.id())];
    watch(&all, options.duration()).await?;
    drop((manager, scheduler, server));
    let server = Server::start_as(options, "control-plane", &dir.join("together")).await?;
    tokio::time::sleep(SETTLE).await;
    println!("the whole control plane, one process:");
    watch(&[("control-plane", server.pid().context("the server has no process")?)], options.duration()).await
}

fn components(options: &Options, dir: &Path) -> Result<(Process, Process)> {
    let data = dir.join("apiserver");
    let flag = |name: &str, path: std::path::PathBuf| [OsString::from(name), path.into()];
    let manager = flag("--kubeconfig", data.join("controller-manager.kubeconfig"));
    let manager = manager.into_iter().chain(flag("--root-ca-file", data.join("pki/ca.crt")));
    let scheduler = flag("--kubeconfig", data.join("scheduler.kubeconfig")).into_iter();
    Ok((
        spawn(&options.binary()?, "kube-controller-manager", manager, &dir.join("controller-manager.log"))?,
        spawn(&options.binary()?, "kube-scheduler", scheduler, &dir.join("scheduler.log"))?,
    ))
}

/// Prints what processes use over a time.
async fn watch(processes: &[(&str, u32)], time: Duration) -> Result<()> {
    let used = |pid: u32| server::cpu(pid).context("a process has ended");
    let before = processes.iter().map(|(_, pid)| used(*pid)).collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(time).await;
    let (mut memory, mut share) = (0.0, 0.0);
    for ((name, pid), before) in processes.iter().zip(before) {
        let cpu = used(*pid)?.saturating_sub(before).as_secs_f64() / time.as_secs_f64() * 100.0;
        let pss = mib(pss_bytes(*pid).context("reading a process's memory")?);
        println!("  {name:<26} PSS {pss:>7.1} MiB   CPU {cpu:.2}% of a core over {:.0} s", time.as_secs_f64());
        memory += pss;
        share += cpu;
    }
    if processes.len() > 1 {
        println!("  {:<26} PSS {memory:>7.1} MiB   CPU {share:.2}% of a core", "together");
    }
    Ok(())
}
