//! `skiff status`: nodes, components, versions, addresses, resource use.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;

use crate::commands::up::node_ready;
use crate::instance::{Dirs, Instance};
use crate::process;
use crate::supervisor::Report;

pub fn run(dirs: &Dirs) -> Result<()> {
    let Some(instance) = dirs.load()? else {
        println!("No cluster lives in {}. `skiff up` starts one.", dirs.data.display());
        return Ok(());
    };
    println!("Cluster {} (context {:?})", instance.id, instance.context);
    println!("  data      {}", dirs.data.display());
    println!("  objects   {}", instance.datastore(dirs));
    println!("  server    {}", instance.server());
    println!("  services  {}   pods {}", instance.service_cidr, instance.pod_cidr);
    let Some(report) = Report::read(dirs) else {
        println!("\nIt is stopped. `skiff up` brings it back.");
        return Ok(());
    };
    components(dirs, &report);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(nodes(dirs, &instance)) {
        println!("\nThe API server does not answer: {error:#}; {} says more", dirs.log().display());
    }
    Ok(())
}

fn components(dirs: &Dirs, report: &Report) {
    println!("\n{:<22} {:>8} {:>9} {:>12}", "PROCESS", "PID", "RESTARTS", "MEMORY (PSS)");
    let memory = |pid| process::pss_kib(pid).map_or_else(|| "?".to_owned(), |kib| format!("{:.1} MiB", mib(kib)));
    println!("{:<22} {:>8} {:>9} {:>12}", "supervisor", report.supervisor.pid, "-", memory(report.supervisor.pid));
    let mut known = vec![report.supervisor.pid];
    for (name, child) in &report.children {
        match (&child.process, &child.given_up) {
            (Some(process), _) => {
                known.push(process.pid);
                println!("{name:<22} {:>8} {:>9} {:>12}", process.pid, child.restarts, memory(process.pid));
            }
            (None, Some(why)) => println!("{name:<22} {:>8} {:>9}   {}", "-", child.restarts, why.trim()),
            (None, None) => println!("{name:<22} {:>8} {:>9}   starting", "-", child.restarts),
        }
    }
    let all = process::running(&dirs.data.join("bin/skiff"));
    let shims: Vec<i32> = all.iter().copied().filter(|pid| !known.contains(pid)).collect();
    let kib: u64 = shims.iter().filter_map(|pid| process::pss_kib(*pid)).sum();
    println!("{:<22} {:>8} {:>9} {:>12}", format!("shims ({})", shims.len()), "-", "-", format!("{:.1} MiB", mib(kib)));
    let total: u64 = known.iter().filter_map(|pid| process::pss_kib(*pid)).sum::<u64>() + kib;
    println!("{:<22} {:>8} {:>9} {:>12}", "together", "", "", format!("{:.1} MiB", mib(total)));
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

async fn nodes(dirs: &Dirs, instance: &Instance) -> Result<()> {
    let client = client::from_kubeconfig(&dirs.admin_kubeconfig()).await?;
    let version = client.apiserver_version().await.context("asking for the version")?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("listing nodes")?;
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await.context("listing pods")?;
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    let running = |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    for pod in pods.items.iter().filter(running) {
        if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) {
            *per_node.entry(node).or_insert(0) += 1;
        }
    }
    println!("\nKubernetes {} (skiff {})", version.git_version, env!("CARGO_PKG_VERSION"));
    println!("\n{:<22} {:<10} {:<16} {:<18} {:>12}", "NODE", "STATUS", "ADDRESS", "POD RANGE", "PODS RUNNING");
    for node in &nodes.items {
        let name = node.metadata.name.clone().unwrap_or_default();
        let addresses = node.status.as_ref().and_then(|s| s.addresses.clone()).unwrap_or_default();
        let address = addresses.iter().find(|a| a.type_ == "InternalIP").map_or("?", |a| a.address.as_str());
        let range = node.spec.as_ref().and_then(|s| s.pod_cidr.clone()).unwrap_or_else(|| "?".to_owned());
        let status = if node_ready(node) { "Ready" } else { "NotReady" };
        println!("{name:<22} {status:<10} {address:<16} {range:<18} {:>12}", per_node.get(&name).unwrap_or(&0));
    }
    if nodes.items.len() < usize::from(instance.nodes) {
        println!("{} of {} nodes have registered", nodes.items.len(), instance.nodes);
    }
    Ok(())
}
