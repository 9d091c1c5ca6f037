//! One node: pod network, runtime, kubelet, service proxy, routes and DNS, wired together. The daemon runs the first
//! node's, `node-agent` an extra node's, `skiff kubelet` a machine's.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use client::Informers;
use ipnet::IpNet;
use kube::Client;
use kubelet::Kubelet;
use network::{
    DnsOptions, DnsServer, HostPort, NetNs, NodeConfig, PodIdentity, PodNetworker, PolicyEnforcer, PolicyOptions, Proxy, ProxyOptions,
    Router, RouterOptions,
};
use runtime::images::Images;
use runtime::{NetworkError, PodNetwork, Runtime, SandboxNetwork};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a node needs to be told.
#[derive(Clone)]
pub struct NodeSetup {
    pub name: String,
    /// The cluster's id; the node's own host objects are named from it and the node's name.
    pub instance: String,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub addresses: Vec<IpAddr>,
    pub service_cidr: IpNet,
    pub pod_cidr: IpNet,
    /// Addresses of extra nodes on the same machine.
    pub node_cidr: Option<IpNet>,
    /// The machine behind the default route knows the way to all pods: so it is for extra nodes.
    pub uplink_routes_pods: bool,
    /// A local cluster on somebody's machine, rather than a machine that is a node.
    pub shares_disk: bool,
    pub proxy_health: Option<SocketAddr>,
    pub kubelet_server: Option<kubelet::ServerConfig>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    pub node_labels: std::collections::BTreeMap<String, String>,
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
}

/// Who asks the API for what: a kubelet may see little, the proxy other things.
pub struct Clients {
    pub kubelet: Client,
    /// Services, EndpointSlices, Nodes.
    pub proxy: Informers,
}

/// The tenth address of the services: where every cluster's DNS is.
pub fn dns_address(services: &IpNet) -> Option<IpAddr> {
    match services {
        IpNet::V4(net) => net.hosts().nth(9).map(IpAddr::V4),
        IpNet::V6(net) => net.hosts().nth(10).map(IpAddr::V6),
    }
}

/// The runtime's configuration of a node; `down` takes it apart by the same.
pub fn runtime_config(setup_data: &std::path::Path, setup_run: &std::path::Path, instance: &str, node: &str) -> runtime::Config {
    runtime::Config::new(setup_data.join("runtime"), setup_run, format!("{instance}-{node}"))
}

/// Runs the node until cancelled, or until a part of it fails. `images` fills the image store before pods can run.
pub async fn run(
    setup: NodeSetup,
    clients: Clients,
    images: impl AsyncFnOnce(Images) -> Result<()>,
    cancel: CancellationToken,
) -> Result<()> {
    let netns = NetNs::current().context("opening this node's network namespace")?;
    let instance = network::Instance::new(&setup.instance);
    let config = NodeConfig {
        instance: instance.clone(),
        node_name: setup.name.clone(),
        netns: netns.clone(),
        state_dir: setup.data_dir.join("network"),
        cluster_cidrs: vec![setup.pod_cidr],
        service_cidrs: vec![setup.service_cidr],
        node_cidr: setup.node_cidr,
        mtu: None,
    };
    let networker = Arc::new(PodNetworker::open(config).await.context("preparing the pod network")?);
    let runtime_config = runtime_config(&setup.data_dir, &setup.run_dir, &setup.instance, &setup.name);
    let socket = runtime_config.socket.clone();
    let runtime = Runtime::start(runtime_config, Arc::new(Attach(networker.clone())), cancel.clone())
        .await
        .context("starting the container runtime")?;
    images(runtime.images()).await.context("loading the built-in image")?;

    let dns = dns_address(&setup.service_cidr);
    let mut parts = Parts { running: JoinSet::new(), cancel };
    start_network(&mut parts, &setup, &clients.proxy, Place { instance, netns, dns }, networker).await?;
    let kubelet_config = kubelet_config(&setup, dns);
    parts.start("kubelet", |token| async move {
        let informers = Informers::new(clients.kubelet.clone());
        Ok(Kubelet::run(kubelet_config, clients.kubelet, informers, &socket, token).await?)
    });
    let outcome = parts.ended().await;
    runtime.stop().await;
    outcome
}

/// Where on the host a node's network is.
struct Place {
    instance: network::Instance,
    netns: NetNs,
    dns: Option<IpAddr>,
}

/// Starts what makes Services, policies, names and routes work on the node.
async fn start_network(
    parts: &mut Parts,
    setup: &NodeSetup,
    informers: &Informers,
    Place { instance, netns, dns }: Place,
    networker: Arc<PodNetworker>,
) -> Result<()> {
    let proxy = Proxy::new(
        informers,
        ProxyOptions {
            instance: instance.clone(),
            node_name: setup.name.clone(),
            netns: netns.clone(),
            cluster_cidrs: vec![setup.pod_cidr],
            masquerade_all: false,
            local_vips: dns.into_iter().collect::<BTreeSet<_>>(),
            healthz: setup.proxy_health,
        },
    );
    parts.start("kube-proxy", |token| async move { Ok(proxy.run(token).await?) });
    let always = dns.into_iter().collect();
    let options = PolicyOptions { instance: instance.clone(), node_name: setup.name.clone(), netns: netns.clone(), always };
    let policies = PolicyEnforcer::new(informers, options).context("preparing network policies")?;
    parts.start("network policies", |token| async move {
        policies.run(token).await;
        Ok(())
    });
    let options = DnsOptions {
        instance: instance.clone(),
        netns: netns.clone(),
        domain: setup.cluster_domain.clone(),
        addresses: dns.into_iter().collect(),
        upstream: network::dns::host_resolvers(&setup.resolv_conf),
    };
    let server = DnsServer::open(informers, options).await.context("starting DNS")?;
    parts.start("dns", |token| async move {
        server.run(token).await;
        Ok(())
    });
    let options = RouterOptions { instance, node_name: setup.name.clone(), netns, uplink_routes_pods: setup.uplink_routes_pods };
    let router = Router::new(informers, options, networker).await.context("preparing routes to other nodes")?;
    parts.start("routes", |token| async move {
        router.run(token).await;
        Ok(())
    });
    Ok(())
}

/// The parts of a node, each by its name. Every part runs until cancelled: one that ends before takes the node down, and the
/// supervisor starts it anew.
struct Parts {
    running: JoinSet<(&'static str, Result<()>)>,
    cancel: CancellationToken,
}

impl Parts {
    fn start<F>(&mut self, name: &'static str, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let part = part(self.cancel.clone());
        self.running.spawn(async move { (name, part.await) });
    }

    /// Waits for all of them; the error is that of the first which failed or ended too early.
    async fn ended(mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let (name, result) = ended.context("a part of the node panicked")?;
            if !self.cancel.is_cancelled() {
                outcome = Err(result.err().unwrap_or_else(|| anyhow!("it ended")).context(format!("{name} failed")));
                self.cancel.cancel();
            }
        }
        outcome
    }
}

fn kubelet_config(setup: &NodeSetup, dns: Option<IpAddr>) -> kubelet::Config {
    let mut config = kubelet::Config::new(&setup.name);
    config.node_ips.clone_from(&setup.addresses);
    config.root_dir = setup.data_dir.join("kubelet");
    config.pod_logs_dir = setup.data_dir.join("pod-logs");
    config.cluster_dns = dns.into_iter().collect();
    config.cluster_domain.clone_from(&setup.cluster_domain);
    config.resolv_conf.clone_from(&setup.resolv_conf);
    config.max_pods = setup.max_pods;
    config.cgroup_root = format!("/skiff-{}-{}/kubepods", setup.instance, setup.name);
    config.server.clone_from(&setup.kubelet_server);
    if setup.shares_disk {
        // The machine's disk is its user's: a full home folder must not drive pods away or images out.
        config.disk_pressure_percent = 0;
        config.image_gc_high_percent = 100;
    }
    config.node_labels.clone_from(&setup.node_labels);
    config.register_with_taints.clone_from(&setup.register_with_taints);
    config
}

/// The pod network as the runtime wants it.
struct Attach(Arc<PodNetworker>);

impl Attach {
    fn identity(sandbox: &SandboxNetwork) -> PodIdentity {
        PodIdentity {
            sandbox_id: sandbox.id.clone(),
            namespace: sandbox.namespace.clone(),
            name: sandbox.name.clone(),
            uid: sandbox.uid.clone(),
        }
    }

    fn ports(sandbox: &SandboxNetwork) -> Result<Vec<HostPort>, NetworkError> {
        let port = |p: &runtime::PortMapping| -> Result<HostPort, NetworkError> {
            Ok(HostPort { host_ip: p.host_ip, host_port: p.host_port, container_port: p.container_port, protocol: protocol(p.protocol)? })
        };
        sandbox.port_mappings.iter().map(port).collect()
    }
}

fn protocol(name: &str) -> Result<netplan::nft::Protocol, NetworkError> {
    match name {
        "TCP" => Ok(netplan::nft::Protocol::Tcp),
        "UDP" => Ok(netplan::nft::Protocol::Udp),
        "SCTP" => Ok(netplan::nft::Protocol::Sctp),
        other => Err(format!("protocol {other:?} of a host port is not known").into()),
    }
}

#[async_trait::async_trait]
impl PodNetwork for Attach {
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(self.0.attach(&sandbox.netns, &Self::identity(sandbox), &Self::ports(sandbox)?).await?)
    }

    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError> {
        Ok(self.0.detach(&sandbox.id).await?)
    }

    async fn check(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError> {
        let ports = Self::ports(sandbox)?;
        Ok(self.0.check(&sandbox.netns, &Self::identity(sandbox), &ports, &sandbox.ips).await?)
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        if self.0.is_ready().await { Ok(()) } else { Err("the Node has no pod CIDR yet".into()) }
    }
}
