//! `skiff kubelet`: the node agent with the embedded runtime and pod network, or, with `--container-runtime-endpoint`, the
//! agent alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Args;
use client::Informers;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Taint;
use kube::Client;
use kubelet::Kubelet;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::node::{self, Clients, NodeSetup};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(flatten)]
    certificates: super::node_certificates::Flags,
    /// Of the service proxy and DNS, where they run here [default: the kubelet's]
    #[arg(long)]
    proxy_kubeconfig: Option<PathBuf>,
    /// This node's name [default: the host's name]
    #[arg(long)]
    hostname_override: Option<String>,
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    #[arg(long, default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    #[arg(long, default_value = "/run/skiff-kubelet")]
    run_dir: PathBuf,
    /// containerd's or CRI-O's socket; without it the embedded runtime serves
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    #[arg(long, default_value_t = 10250)]
    port: u16,
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<IpAddr>,
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cluster_ip_range: ipnet::IpNet,
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: ipnet::IpNet,
    #[arg(long, default_value_t = 110)]
    max_pods: u32,
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// key=value
    #[arg(long, value_delimiter = ',')]
    node_labels: Vec<String>,
    /// key=value:effect
    #[arg(long, value_delimiter = ',')]
    register_with_taints: Vec<String>,
    /// The cluster's id on this machine, where several run side by side
    #[arg(long, default_value = "0")]
    instance: String,
}

pub fn run(flags: &Flags) -> Result<()> {
    let renewed = &AtomicBool::new(false);
    super::run(|cancel| async move {
        let name = node_name(flags.hostname_override.as_deref())?;
        flags.certificates.first(&flags.kubeconfig, &name, &cancel).await?;
        let client = client::from_kubeconfig_named(&flags.kubeconfig, "kubelet").await?;
        let addresses = if flags.node_ip.is_empty() {
            network::node_addresses(&network::NetNs::current()?).await.context("finding this machine's address")?
        } else {
            flags.node_ip.clone()
        };
        let ended = cancel.child_token();
        let (outcome, ()) = tokio::join!(
            async {
                let outcome = serve(flags, client.clone(), &name, addresses.clone(), ended.clone()).await;
                ended.cancel();
                outcome
            },
            async {
                if flags.certificates.rotate(&client, &name, &addresses, &ended).await {
                    tracing::info!("there is a newer certificate: beginning anew with it");
                    renewed.store(true, Ordering::Relaxed);
                    ended.cancel();
                }
            }
        );
        outcome
    })?;
    if renewed.load(Ordering::Relaxed) { anew() } else { Ok(()) }
}

/// Puts a new process in the place of this one. Pods do not notice: their containers belong to their shims.
fn anew() -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let own = std::env::current_exe().context("finding this program")?;
    // A program that was removed from its folder meanwhile is still there.
    let mut why = std::io::Error::other("no program");
    for program in [own, PathBuf::from("/proc/self/exe")] {
        why = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
    }
    Err(why).context("beginning anew")
}

async fn serve(flags: &Flags, client: Client, name: &str, addresses: Vec<IpAddr>, cancel: CancellationToken) -> Result<()> {
    let server = server(flags, &client)?;
    if let Some(endpoint) = &flags.container_runtime_endpoint {
        let config = plain_config(flags, name, addresses, server)?;
        let socket = PathBuf::from(endpoint.trim_start_matches("unix://"));
        let informers = Informers::new(client.clone());
        return Kubelet::run(config, client, informers, &socket, cancel).await.context("running the kubelet");
    }
    let setup = NodeSetup {
        instance: flags.instance.clone(),
        data_dir: flags.root_dir.clone(),
        run_dir: flags.run_dir.clone(),
        addresses,
        service_cidr: flags.service_cluster_ip_range,
        pod_cidr: flags.cluster_cidr,
        node_cidr: None,
        uplink_routes_pods: false,
        shares_disk: false,
        proxy_health: Some(SocketAddr::from(([0, 0, 0, 0], 10256))),
        kubelet_server: server,
        cluster_domain: flags.cluster_domain.clone(),
        resolv_conf: flags.resolv_conf.clone(),
        max_pods: flags.max_pods,
        node_labels: labels(&flags.node_labels)?,
        register_with_taints: flags.register_with_taints.iter().map(|t| taint(t)).collect::<Result<_>>()?,
        name: name.to_owned(),
    };
    crate::instance::make_private(&setup.data_dir)?;
    crate::instance::make_private(&setup.run_dir)?;
    let proxy = match &flags.proxy_kubeconfig {
        Some(path) => client::from_kubeconfig(path).await?,
        None => client.clone(),
    };
    let clients = Clients { kubelet: client, proxy: Informers::new(proxy) };
    node::run(setup, clients, async |images| crate::hello_image::ensure(&images).await, cancel).await
}

fn plain_config(flags: &Flags, name: &str, addresses: Vec<IpAddr>, server: Option<kubelet::ServerConfig>) -> Result<kubelet::Config> {
    let mut config = kubelet::Config::new(name);
    config.node_ips = addresses;
    config.root_dir.clone_from(&flags.root_dir);
    if !flags.cluster_dns.is_empty() {
        config.cluster_dns.clone_from(&flags.cluster_dns);
    }
    config.cluster_domain.clone_from(&flags.cluster_domain);
    config.resolv_conf.clone_from(&flags.resolv_conf);
    config.max_pods = flags.max_pods;
    config.node_labels = labels(&flags.node_labels)?;
    config.register_with_taints = flags.register_with_taints.iter().map(|t| taint(t)).collect::<Result<_>>()?;
    config.server = server;
    Ok(config)
}

fn server(flags: &Flags, client: &Client) -> Result<Option<kubelet::ServerConfig>> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let issued = flags.certificates.serving()?;
    let pair = match (issued, &flags.tls_cert_file, &flags.tls_private_key_file) {
        (Some(both), ..) => Some((both.clone(), both)),
        (None, Some(certificate), Some(key)) if !flags.certificates.signs_serving() => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let (Some((certificate_pem, key_pem)), Some(ca)) = (pair, &flags.client_ca_file) else {
        if flags.certificates.signs_serving() {
            tracing::warn!("no serving certificate yet: until its request is approved there are no logs and no exec");
        } else {
            tracing::warn!("without --tls-cert-file, --tls-private-key-file and --client-ca-file there are no logs and no exec");
        }
        return Ok(None);
    };
    let address = SocketAddr::from(([0, 0, 0, 0], flags.port));
    Ok(Some(kubelet::ServerConfig { address, certificate_pem, key_pem, client_ca_pem: read(ca)?, authorize: by_review(client.clone()) }))
}

/// Asks the API server whether a request to the kubelet's own server is allowed, as upstream's webhook mode does.
pub fn by_review(client: Client) -> kubelet::Authorizer {
    Arc::new(move |request: kubelet::Request| {
        let client = client.clone();
        async move {
            for subresource in &request.subresources {
                let attributes = json!({ "verb": request.verb, "resource": "nodes", "subresource": subresource });
                let spec = json!({ "user": request.user, "groups": request.groups, "resourceAttributes": attributes });
                match crate::review::is_allowed(&client, &spec).await {
                    Ok(true) => return true,
                    Ok(false) => {}
                    Err(error) => tracing::warn!("a request to the kubelet could not be reviewed: {error:#}"),
                }
            }
            false
        }
        .boxed()
    })
}

/// The name given, else the host's.
pub fn node_name(given: Option<&str>) -> Result<String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?,
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() { bail!("this host has no name: give one with --hostname-override") } else { Ok(name) }
}

fn labels(list: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |l: &String| {
        l.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).with_context(|| format!("--node-labels {l}: must be key=value"))
    };
    list.iter().map(pair).collect()
}

/// `key=value:effect` or `key:effect`
fn taint(text: &str) -> Result<Taint> {
    let (head, effect) = text.rsplit_once(':').with_context(|| format!("--register-with-taints {text}: must be key=value:effect"))?;
    let (key, value) = head.split_once('=').unwrap_or((head, ""));
    Ok(Taint { key: key.to_owned(), value: (!value.is_empty()).then(|| value.to_owned()), effect: effect.to_owned(), time_added: None })
}
