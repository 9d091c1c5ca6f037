//! Who has which address, on disk and in memory. A lease is written before anything is made from it, so that whatever a
//! crash leaves can be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use netplan::ipam::next_free;
use netplan::nft::Protocol;
use netplan::pods::PortMapping;
use serde::{Deserialize, Serialize};

use super::PodIdentity;
use crate::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub pod: PodIdentity,
    pub link: String,
    pub addresses: Vec<IpAddr>,
    #[serde(with = "ports")]
    pub ports: Vec<PortMapping>,
}

/// All leases of a node.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    by_sandbox: BTreeMap<String, Lease>,
    taken: BTreeSet<IpAddr>,
    last: BTreeMap<IpNet, IpAddr>,
}

impl Leases {
    pub(super) fn load(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|e| Error::file("create directory", directory, e))?;
        let mut leases = Leases { directory: directory.into(), by_sandbox: BTreeMap::new(), taken: BTreeSet::new(), last: BTreeMap::new() };
        let entries = std::fs::read_dir(directory).map_err(|e| Error::file("read directory", directory, e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::file("read directory", directory, e))?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
            // A torn file is of a pod that was never connected: its write is synced before the link is made.
            match serde_json::from_slice::<Lease>(&bytes) {
                Ok(lease) => leases.remember(lease),
                Err(e) => {
                    tracing::warn!(path = %path.display(), error = %e, "removing an unreadable network record");
                    std::fs::remove_file(&path).map_err(|e| Error::file("remove", &path, e))?;
                }
            }
        }
        Ok(leases)
    }

    fn remember(&mut self, lease: Lease) {
        self.taken.extend(lease.addresses.iter().copied());
        self.by_sandbox.insert(lease.pod.sandbox_id.clone(), lease);
    }

    pub(super) fn get(&self, sandbox_id: &str) -> Option<&Lease> {
        self.by_sandbox.get(sandbox_id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.by_sandbox.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Lease> {
        self.by_sandbox.values()
    }

    /// A free address of each network.
    pub(super) fn pick(&mut self, networks: &[IpNet]) -> Result<Vec<IpAddr>> {
        let mut picked = Vec::new();
        for net in networks {
            let found = next_free(net, &self.taken, self.last.get(net).copied()).ok_or(Error::NoFreeAddress(*net))?;
            self.last.insert(*net, found);
            picked.push(found);
        }
        Ok(picked)
    }

    pub(super) fn add(&mut self, lease: Lease) -> Result<()> {
        self.remove(&lease.pod.sandbox_id)?;
        let path = self.path(&lease.pod.sandbox_id)?;
        let bytes = serde_json::to_vec(&lease).map_err(|e| Error::Invalid(e.to_string()))?;
        write_whole(&path, &bytes).map_err(|e| Error::file("write", &path, e))?;
        self.remember(lease);
        Ok(())
    }

    pub(super) fn remove(&mut self, sandbox_id: &str) -> Result<()> {
        let Some(lease) = self.by_sandbox.get(sandbox_id) else { return Ok(()) };
        let path = self.path(sandbox_id)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", path, e)),
            _ => {}
        }
        for address in &lease.addresses {
            self.taken.remove(address);
        }
        self.by_sandbox.remove(sandbox_id);
        Ok(())
    }

    fn path(&self, sandbox_id: &str) -> Result<PathBuf> {
        let plain = sandbox_id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if sandbox_id.is_empty() || sandbox_id.len() > 128 || !plain {
            return Err(Error::Invalid(format!("{sandbox_id:?} is not a sandbox id")));
        }
        Ok(self.directory.join(format!("{sandbox_id}.json")))
    }
}

/// All or nothing, also after a crash.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(new, path)
}

/// `PortMapping` is a type of a pure crate that knows no file format.
mod ports {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Port {
        host_ip: Option<IpAddr>,
        host_port: u16,
        protocol: u8,
        pod_ip: IpAddr,
        pod_port: u16,
    }

    pub(super) fn serialize<S: Serializer>(ports: &[PortMapping], s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_seq(ports.iter().map(|p| Port {
            host_ip: p.host_ip,
            host_port: p.host_port,
            protocol: p.protocol.number(),
            pod_ip: p.pod_ip,
            pod_port: p.pod_port,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<PortMapping>, D::Error> {
        let ports = Vec::<Port>::deserialize(d)?;
        let one = |p: Port| {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|known| known.number() == p.protocol);
            Ok(PortMapping {
                host_ip: p.host_ip,
                host_port: p.host_port,
                protocol: protocol.ok_or_else(|| D::Error::custom("unknown protocol"))?,
                pod_ip: p.pod_ip,
                pod_port: p.pod_port,
            })
        };
        ports.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str, address: IpAddr) -> Lease {
        let port = PortMapping { host_ip: None, host_port: 8080, protocol: Protocol::Udp, pod_ip: address, pod_port: 80 };
        let pod = PodIdentity { sandbox_id: id.into(), ..PodIdentity::default() };
        Lease { pod, link: "l".into(), addresses: vec![address], ports: vec![port] }
    }

    #[test]
    fn leases_survive_a_restart_and_torn_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let net: IpNet = "10.0.0.0/24".parse().unwrap();
        let mut leases = Leases::load(dir.path()).unwrap();
        let first = leases.pick(&[net]).unwrap()[0];
        leases.add(lease("a", first)).unwrap();
        std::fs::write(dir.path().join("torn.json"), "{\"pod").unwrap();

        let mut again = Leases::load(dir.path()).unwrap();
        assert_eq!(again.get("a"), leases.get("a"));
        assert!(!dir.path().join("torn.json").exists());
        assert_ne!(again.pick(&[net]).unwrap()[0], first);
        again.remove("a").unwrap();
        again.remove("a").unwrap();
        assert_eq!(Leases::load(dir.path()).unwrap().ids().count(), 0);
    }

    #[test]
    fn a_sandbox_id_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut leases = Leases::load(dir.path()).unwrap();
        for id in ["../x", "a/b", "", "."] {
            assert!(leases.add(lease(id, "10.0.0.2".parse().unwrap())).is_err(), "{id}");
        }
    }
}
