//! What runs in the background: the daemon (the whole control plane and the first node) and the agents of extra nodes.
//! This is the wiring diagram; it reads top to bottom.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::Handle;
use auth::User;
use client::Informers;
use ipnet::IpNet;
use network::{NetNs, NodeNamespace};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::instance::{Dirs, Instance, make_private, write_atomically};
use crate::node::{self, Clients, NodeSetup};
use crate::roles::control_plane::{self, Ended, Ports};
use crate::roles::kube_apiserver::write_admin_kubeconfig;
use crate::roles::{kube_controller_manager, settle, stop_on_signal};
use crate::snapshots::Datastore;
use crate::supervisor::{EXIT_HOPELESS, error_file};
use crate::{claim, control, hello_image, own_objects};

/// The daemon's main.
pub fn main(dirs: &Dirs, snapshots: &crate::snapshots::Flags) -> ExitCode {
    supervised(dirs, "daemon", || daemon(dirs, snapshots))
}

/// An extra node's main.
pub fn node_main(dirs: &Dirs, number: u16) -> ExitCode {
    let name = match dirs.load() {
        Ok(Some(instance)) => instance.node_name(number),
        _ => format!("node {number}"),
    };
    supervised(dirs, &name, || agent(dirs, number))
}

/// Runs a main; leaves the reason of a failed start where `up` finds it. A failure after the start is a crash, which the
/// supervisor answers by starting anew.
fn supervised(dirs: &Dirs, name: &str, main: impl FnOnce() -> Result<Started>) -> ExitCode {
    crate::log::init();
    // The supervisor blocks the signals that it reads from a descriptor, and a child inherits that.
    if let Err(error) = nix::sys::signal::SigSet::all().thread_unblock() {
        tracing::warn!(%error, "signals stay blocked: this process will not end in time");
    }
    // Without its supervisor nobody would restart or stop this process.
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM) {
        tracing::warn!(%error, "this process will not end with its supervisor");
    }
    match main() {
        Ok(Started) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{name}: {error:#}");
            if !hopeless(&error) {
                return ExitCode::FAILURE;
            }
            if let Err(error) = write_atomically(&error_file(dirs, name), format!("{error:#}\n").as_bytes()) {
                tracing::error!("{error:#}");
            }
            ExitCode::from(u8::try_from(EXIT_HOPELESS).unwrap_or(1))
        }
    }
}

/// It ran and was told to end.
struct Started;

/// A start failed in a way that trying again will not mend.
#[derive(Debug, thiserror::Error)]
#[error("the start failed")]
struct Hopeless;

fn hopeless(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hopeless>().is_some()
}

fn load(dirs: &Dirs) -> Result<Instance> {
    dirs.load()?.context("no cluster lives here: run `skiff up`")
}

fn daemon(dirs: &Dirs, snapshots: &crate::snapshots::Flags) -> Result<Started> {
    let instance = load(dirs)?;
    // API and node work have runtimes of their own: a busy node must not make the API wait, nor the other way round.
    let api_runtime = Builder::new_multi_thread().thread_name("api").thread_stack_size(8 << 20).enable_all().build()?;
    let node_runtime = Builder::new_multi_thread().thread_name("node").worker_threads(2).enable_all().build()?;
    let ended = api_runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let signals = tokio::spawn(stop_on_signal(cancel.clone()));
        let settled = tokio::spawn(settle());
        let host = NetNs::current()?;
        let fallback = first_node_address(&instance)?;
        let network_instance = network::Instance::new(&instance.id);
        let addresses = network::ensure_node_address(&host, &network_instance, fallback).await.context("finding this machine's address")?;
        // An etcd cluster may answer later.
        let lasting = |e: anyhow::Error| if instance.etcd.is_some() { e } else { e.context(Hopeless) };
        let datastore = Datastore::open(instance.etcd.as_ref(), &dirs.data).await.map_err(lasting)?;
        if instance.etcd.is_some() {
            claim(&instance, datastore.store(), &mut tasks, &cancel).await?;
        }
        if let Some(plan) = snapshots.plan(&dirs.data).map_err(|e| e.context(Hopeless))? {
            let (datastore, cancel) = (datastore.clone(), cancel.clone());
            tasks.spawn(async move {
                plan.run(datastore, cancel.clone()).await;
                // Without a time to come it has nothing more to do.
                cancel.cancelled().await;
                ("snapshots", Ok(()))
            });
        }
        // What the disk keeps is known when it is read again: the supervisor starts this process anew.
        let (failing, token) = (datastore.clone(), cancel.clone());
        tasks.spawn(async move { ("datastore", token.run_until_cancelled(failing.failed()).await.map_or(Ok(()), Err)) });
        let handle = api_server(dirs, &instance, &addresses, datastore.store()).await.map_err(lasting)?;
        let admin = client::in_process_named(handle.service(), "skiff");
        let services: IpNet = instance.service_cidr.parse().context("the instance's service range")?;
        own_objects::ensure(&admin, node::dns_address(&services)).await.map_err(lasting)?;
        prepare_nodes(dirs, &instance, &handle, &addresses)?;
        let config = kube_controller_manager::settings(&instance.pod_cidr, 24, handle.ca());
        let ports = Ports { controller_manager: instance.controller_manager_port, scheduler: instance.scheduler_port };
        control_plane::start(&handle, config, None, ports, &mut tasks, &cancel).await;
        let setup = first_node(dirs, &instance, &handle, addresses)?;
        let clients = Clients {
            kubelet: client::in_process_named(handle.service_as(node_user(&setup.name)), "kubelet"),
            proxy: Informers::new(client::in_process_named(handle.service_as(User::new(own_objects::NETWORK_USER, &[])), "kube-proxy")),
        };
        let (node_dirs, token) = (dirs.clone(), cancel.clone());
        let running = node_runtime.spawn(async move { run_node(node_dirs, setup, clients, token).await });
        tasks.spawn(async move { ("node", running.await.unwrap_or_else(|e| Err(e.into()))) });
        let outcome = control_plane::first_failure(&mut tasks, &cancel).await;
        handle.shutdown().await;
        signals.abort();
        settled.abort();
        outcome
    });
    node_runtime.shutdown_timeout(Duration::from_secs(2));
    api_runtime.shutdown_timeout(Duration::from_secs(2));
    ended.map(|()| Started)
}

/// This cluster alone has its prefix of etcd from here on.
async fn claim(instance: &Instance, store: Arc<dyn store::Store>, tasks: &mut JoinSet<Ended>, cancel: &CancellationToken) -> Result<()> {
    let owner = claim::Owner { instance: instance.id.clone(), host: host_name().unwrap_or_default() };
    let claim = match claim::Claim::take(store, owner).await {
        Ok(claim) => claim,
        Err(taken @ claim::Error::Taken(_)) => return Err(anyhow::Error::from(taken).context(Hopeless)),
        Err(error) => return Err(error.into()),
    };
    let cancel = cancel.clone();
    tasks.spawn(async move { ("the claim to the etcd prefix", claim.keep(cancel).await) });
    Ok(())
}

async fn api_server(dirs: &Dirs, instance: &Instance, addresses: &[IpAddr], store: Arc<dyn store::Store>) -> Result<Handle> {
    let mut config = apiserver::Config::new(dirs.pki());
    config.secure_port = instance.api_port;
    config.shared_store = instance.etcd.is_some();
    config.advertise_address = addresses.first().copied();
    config.service_cluster_ip_ranges = vec![instance.service_cidr.clone()];
    config.extra_sans = addresses.iter().map(IpAddr::to_string).chain(host_name()).collect();
    let handle = apiserver::Server::start(config, store).await.context("starting the API server")?;
    write_admin_kubeconfig(&handle, &instance.server(), &dirs.admin_kubeconfig())?;
    Ok(handle)
}

fn node_user(name: &str) -> User {
    User::new(format!("system:node:{name}"), &[auth::user::NODES])
}

fn host_name() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty())
}

/// The address of this machine on the links to extra nodes, and its only one where it has no other.
fn first_node_address(instance: &Instance) -> Result<IpAddr> {
    node_address(instance, 1)
}

fn node_address(instance: &Instance, number: u16) -> Result<IpAddr> {
    let range: IpNet = instance.node_network.parse().context("the instance's node network")?;
    range.hosts().nth(usize::from(number) - 1).context("no more addresses for nodes")
}

/// What an extra node's agent starts from: folders and credentials.
fn prepare_nodes(dirs: &Dirs, instance: &Instance, handle: &Handle, addresses: &[IpAddr]) -> Result<()> {
    for number in 1..=instance.nodes {
        let name = instance.node_name(number);
        make_private(&dirs.node_data(&name))?;
        make_private(&dirs.node_run(&name))?;
        if number == 1 {
            continue;
        }
        let pki = handle.pki();
        let server = format!("https://{}", SocketAddr::new(*addresses.first().context("this machine has no address")?, instance.api_port));
        for (file, stem, user, groups) in [
            ("kubelet.kubeconfig", format!("kubelet-{name}"), format!("system:node:{name}"), vec!["system:nodes"]),
            ("network.kubeconfig", "network".to_owned(), own_objects::NETWORK_USER.to_owned(), vec![]),
        ] {
            let identity = pki.client(&stem, &user, &groups).with_context(|| format!("issuing the certificate of {user}"))?;
            let text = apiserver::pki::kubeconfig("skiff", &user, &server, pki.ca_pem(), &identity);
            write_atomically(&dirs.node_data(&name).join(file), text.as_bytes())?;
        }
        let serving = kubelet_serving(handle, &name, &[node_address(instance, number)?])?;
        let serving = serde_json::json!({ "certificate": serving.0, "key": serving.1, "ca": pki.ca_pem() });
        write_atomically(&dirs.node_data(&name).join("kubelet-serving.json"), &serde_json::to_vec(&serving)?)?;
    }
    Ok(())
}

/// PEM of a kubelet's serving certificate and key.
fn kubelet_serving(handle: &Handle, name: &str, addresses: &[IpAddr]) -> Result<(String, String)> {
    let sans: Vec<String> = addresses.iter().map(IpAddr::to_string).chain([name.to_owned()]).collect();
    let user = format!("system:node:{name}");
    let identity = handle.pki().serving(&format!("kubelet-serving-{name}"), &user, &["system:nodes"], &sans)?;
    Ok((identity.cert_pem, identity.key_pem))
}

fn first_node(dirs: &Dirs, instance: &Instance, handle: &Handle, addresses: Vec<IpAddr>) -> Result<NodeSetup> {
    let name = instance.node_name(1);
    let (certificate_pem, key_pem) = kubelet_serving(handle, &name, &addresses)?;
    let review = client::in_process(handle.service_as(node_user(&name)));
    let server = kubelet::ServerConfig {
        address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), instance.kubelet_port),
        certificate_pem,
        key_pem,
        client_ca_pem: handle.ca().to_owned(),
        authorize: crate::roles::kubelet::by_review(review),
    };
    setup(dirs, instance, 1, addresses, server)
}

fn setup(dirs: &Dirs, instance: &Instance, number: u16, addresses: Vec<IpAddr>, server: kubelet::ServerConfig) -> Result<NodeSetup> {
    let name = instance.node_name(number);
    Ok(NodeSetup {
        data_dir: dirs.node_data(&name),
        run_dir: dirs.node_run(&name),
        instance: instance.id.clone(),
        addresses,
        service_cidr: instance.service_cidr.parse().context("the instance's service range")?,
        pod_cidr: instance.pod_cidr.parse().context("the instance's pod range")?,
        node_cidr: Some(instance.node_network.parse().context("the instance's node network")?),
        uplink_routes_pods: number > 1,
        shares_disk: true,
        proxy_health: Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), instance.proxy_health_port)),
        kubelet_server: Some(server),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        max_pods: 110,
        node_labels: BTreeMap::new(),
        register_with_taints: Vec::new(),
        name,
    })
}

async fn run_node(dirs: Dirs, setup: NodeSetup, clients: Clients, cancel: CancellationToken) -> Result<()> {
    let (name, token) = (setup.name.clone(), cancel.clone());
    let mut control = JoinSet::new();
    let serve = async |images: runtime::images::Images| {
        hello_image::ensure(&images).await?;
        control.spawn(async move { control::serve(&dirs, &name, images, token).await });
        Ok(())
    };
    let ended = node::run(setup, clients, serve, cancel).await;
    control.shutdown().await;
    ended
}

/// An extra node: a machine of its own as far as the network goes.
fn agent(dirs: &Dirs, number: u16) -> Result<Started> {
    let instance = load(dirs)?;
    let name = instance.node_name(number);
    let address = node_address(&instance, number)?;
    let data = dirs.node_data(&name);
    wait_for(&data.join("kubelet-serving.json"))?;
    let host = NetNs::current()?;
    let network_instance = network::Instance::new(&instance.id);
    let made = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(NodeNamespace::create(&network_instance, &host, &dirs.run, &name, &[address]))
        .context("making the node's network namespace")?;
    // Before any other thread exists: all that follows lives in the node's namespace.
    nix::sched::setns(std::fs::File::open(&made.path)?, nix::sched::CloneFlags::CLONE_NEWNET)
        .context("entering the node's network namespace")?;
    let runtime = Builder::new_multi_thread().thread_name("node").worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let signals = tokio::spawn(stop_on_signal(cancel.clone()));
        let kubelet_client = client::from_kubeconfig_named(&data.join("kubelet.kubeconfig"), "kubelet").await?;
        let proxy = client::from_kubeconfig_named(&data.join("network.kubeconfig"), "kube-proxy").await?;
        let serving: serde_json::Value = serde_json::from_slice(&fs::read(data.join("kubelet-serving.json"))?)?;
        let text = |key: &str| serving[key].as_str().unwrap_or("").to_owned();
        let server = kubelet::ServerConfig {
            address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 10250),
            certificate_pem: text("certificate"),
            key_pem: text("key"),
            client_ca_pem: text("ca"),
            authorize: crate::roles::kubelet::by_review(kubelet_client.clone()),
        };
        let setup = setup(dirs, &instance, number, made.addresses.clone(), server)?;
        let clients = Clients { kubelet: kubelet_client, proxy: Informers::new(proxy) };
        let ended = run_node(dirs.clone(), setup, clients, cancel).await;
        signals.abort();
        ended
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended.map(|()| Started)
}

/// The daemon writes a node's credentials; its agent may be a little earlier.
fn wait_for(path: &Path) -> Result<()> {
    for _ in 0..3000 {
        if path.exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("the daemon has not written {}", path.display())
}

/// Takes apart what a node has on this machine outside its data: processes, mounts, cgroups.
pub fn teardown_node(dirs: &Dirs, instance: &Instance, name: &str) -> Result<()> {
    let config = node::runtime_config(&dirs.node_data(name), &dirs.node_run(name), &instance.id, name);
    runtime::teardown(&config, true).with_context(|| format!("stopping the pods of {name}"))?;
    unmount_under(&dirs.node_data(name)).with_context(|| format!("unmounting the volumes of {name}"))
}

/// Unmounts everything below a folder, the innermost first.
fn unmount_under(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let unescape = |s: &str| s.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    let mut below: Vec<String> =
        table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).filter(|p| Path::new(p).starts_with(dir)).collect();
    below.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for path in below {
        nix::mount::umount2(path.as_str(), nix::mount::MntFlags::MNT_DETACH).with_context(|| format!("unmounting {path}"))?;
    }
    Ok(())
}
