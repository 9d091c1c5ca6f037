//! What a kubelet is told at its start. No reading of files here: the composition root fills it in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Taint;

/// A request to the kubelet's server that needs permission: verb and subresource of `nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub user: String,
    pub groups: Vec<String>,
    pub verb: &'static str,
    /// Any one of these subresources of `nodes` suffices; the last is upstream's catch-all `proxy`.
    pub subresources: Vec<&'static str>,
    pub path: String,
}

/// Decides on requests to the server, as a SubjectAccessReview would.
pub type Authorizer = Arc<dyn Fn(Request) -> BoxFuture<'static, bool> + Send + Sync>;

/// The HTTPS server.
#[derive(Clone)]
pub struct ServerConfig {
    pub address: SocketAddr,
    /// PEM chain and key of the serving certificate.
    pub certificate_pem: String,
    pub key_pem: String,
    /// PEM of the authority client certificates are checked against.
    pub client_ca_pem: String,
    pub authorize: Authorizer,
}

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    /// `--root-dir`.
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// `--resolv-conf`: what `dnsPolicy: Default` copies.
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    /// The cgroup the pods' cgroups are under.
    pub cgroup_root: String,
    pub node_labels: BTreeMap<String, String>,
    pub register_with_taints: Vec<Taint>,
    pub provider_id: Option<String>,
    /// None: no server.
    pub server: Option<ServerConfig>,
    pub container_log_max_bytes: u64,
    pub container_log_max_files: u32,
    pub image_gc_high_percent: u8,
    pub image_gc_low_percent: u8,
    /// `nodefs.available` of `evictionHard`: less free disk than this, in percent, is DiskPressure. 0: never.
    pub disk_pressure_percent: u8,
    /// Seconds of a lease; it is renewed four times as often.
    pub lease_seconds: i32,
}

impl Config {
    /// Upstream's defaults for a node.
    pub fn new(node_name: &str) -> Self {
        Config {
            node_name: node_name.to_owned(),
            node_ips: Vec::new(),
            root_dir: PathBuf::from("/var/lib/kubelet"),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            cgroup_root: "/kubepods".to_owned(),
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            provider_id: None,
            server: None,
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
            disk_pressure_percent: 10,
            lease_seconds: 40,
        }
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// `<pod logs>/<namespace>_<name>_<uid>`.
    pub(crate) fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    pub(crate) fn port(&self) -> i32 {
        self.server.as_ref().map_or(10250, |s| i32::from(s.address.port()))
    }
}
