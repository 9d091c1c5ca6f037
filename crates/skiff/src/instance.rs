//! What makes one cluster on this machine: its id, where its files are, which ports and address ranges it took. Written
//! once at the first `up` and kept beside the data.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use network::ClusterCidrs;
use serde::{Deserialize, Serialize};

use crate::roles::etcd::Cluster;

/// Where a cluster's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    pub data: PathBuf,
    pub run: PathBuf,
}

/// The facts of a cluster that must not change under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Eight hex digits; every link, cgroup and table of the cluster is named from it.
    pub id: String,
    /// Context, cluster and user in the kubeconfig.
    pub context: String,
    pub api_port: u16,
    /// Of the first node's kubelet.
    pub kubelet_port: u16,
    /// Of the proxy's health checks.
    pub proxy_health_port: u16,
    /// Of what the controllers tell of themselves; 0, in clusters made before: they do not.
    #[serde(default)]
    pub controller_manager_port: u16,
    /// The scheduler's.
    #[serde(default)]
    pub scheduler_port: u16,
    pub service_cidr: String,
    pub pod_cidr: String,
    /// First address of the links between this machine and the extra nodes.
    pub node_network: String,
    /// Nodes in all; the first is this machine.
    pub nodes: u16,
    pub run_dir: PathBuf,
    /// Where the objects are, if not in the embedded datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Cluster>,
}

impl Dirs {
    pub fn file(&self) -> PathBuf {
        self.data.join("instance.json")
    }

    pub fn log(&self) -> PathBuf {
        self.data.join("skiff.log")
    }

    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// The embedded datastore.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Where the supervisor says that it runs.
    pub fn supervisor(&self) -> PathBuf {
        self.run.join("supervisor.json")
    }

    /// A node's own state; the first node's lies here too.
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.data.join("nodes").join(node)
    }

    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run.join("nodes").join(node)
    }

    /// The instance that lives here, if there is one.
    pub fn load(&self) -> Result<Option<Instance>> {
        let path = self.file();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("reading {}: it is damaged; restore it, or remove the cluster with `skiff delete`", path.display())
            })?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("reading {}: can this user read the data directory? Another one is given with --data-dir", path.display())
            }),
        }
    }

    pub fn save(&self, instance: &Instance) -> Result<()> {
        make_private(&self.data)?;
        write_atomically(&self.file(), &serde_json::to_vec_pretty(instance)?)
    }
}

/// Makes a folder that only its owner can enter.
pub fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir).with_context(|| format!("making {}: choose another place with --data-dir or --run-dir", dir.display()))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(|| format!("closing {} to others", dir.display()))
}

/// Writes a file whole or not at all, readable by its owner alone.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let dir = path.parent().context("a file has a folder")?;
    let mut name = path.file_name().context("a file has a name")?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = dir.join(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

impl Instance {
    /// A new cluster: `salt` makes its id, ports are free ones, ranges are given.
    pub fn choose(dirs: &Dirs, nodes: u16, salt: u64, cidrs: &ClusterCidrs) -> Result<Self> {
        Ok(Self {
            id: format!("{:08x}", salt & 0xffff_ffff),
            context: "skiff".to_owned(),
            api_port: free_port(6443)?,
            kubelet_port: free_port(10250)?,
            proxy_health_port: free_port(10256)?,
            controller_manager_port: free_port(10257)?,
            scheduler_port: free_port(10259)?,
            service_cidr: cidrs.services.to_string(),
            pod_cidr: cidrs.pods.to_string(),
            node_network: cidrs.nodes.to_string(),
            nodes,
            run_dir: dirs.run.clone(),
            etcd: None,
        })
    }

    /// Where the objects are, in words.
    pub fn datastore(&self, dirs: &Dirs) -> String {
        self.etcd.as_ref().map_or_else(|| format!("embedded, in {}", dirs.store().display()), Cluster::to_string)
    }

    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// Names of all nodes, the first being this machine.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| self.node_name(n)).collect()
    }

    pub fn node_name(&self, n: u16) -> String {
        if n == 1 { self.context.clone() } else { format!("{}-{n}", self.context) }
    }
}

/// The wanted port, or the next free one.
fn free_port(wanted: u16) -> Result<u16> {
    (wanted..=u16::MAX)
        .step_by(100)
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .with_context(|| format!("no free port from {wanted} up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(name: &str) -> Dirs {
        let base = std::env::temp_dir().join(format!("skiff-instance-{name}-{}", std::process::id()));
        Dirs { data: base.join("data"), run: base.join("run") }
    }

    #[test]
    fn what_was_chosen_stays() {
        let dirs = dirs("stays");
        assert_eq!(dirs.load().unwrap(), None);
        let cidr = |text: &str| text.parse().unwrap();
        let cidrs = ClusterCidrs { services: cidr("10.96.0.0/16"), pods: cidr("10.244.0.0/16"), nodes: cidr("172.30.0.0/24") };
        let instance = Instance::choose(&dirs, 3, 0xabcd, &cidrs).unwrap();
        assert_eq!(instance.id, "0000abcd");
        dirs.save(&instance).unwrap();
        assert_eq!(dirs.load().unwrap(), Some(instance.clone()));
        assert_eq!(instance.node_names(), ["skiff", "skiff-2", "skiff-3"]);
        fs::write(dirs.file(), "{").unwrap();
        assert!(dirs.load().unwrap_err().to_string().contains("damaged"));
        fs::remove_dir_all(dirs.data.parent().unwrap()).unwrap();
    }
}
