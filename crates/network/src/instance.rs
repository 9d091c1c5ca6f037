//! The names of one cluster's host objects. A name says whose it is, so that teardown finds it without any state.

/// A cluster on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    id: String,
}

impl Instance {
    pub fn new(id: impl Into<String>) -> Self {
        Instance { id: id.into() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Begins every link of the instance. 7 characters; the kernel allows 15 in all.
    pub fn link_prefix(&self) -> String {
        format!("sk{:05x}", netplan::names::hash(&self.id) & 0xf_ffff)
    }

    pub fn pod_link(&self, sandbox_id: &str) -> String {
        format!("{}{:08x}", self.link_prefix(), netplan::names::hash(sandbox_id) as u32)
    }

    /// Holds the service network and the addresses the node answers itself.
    pub fn service_link(&self) -> String {
        format!("{}svc", self.link_prefix())
    }

    pub fn vxlan_link(&self) -> String {
        format!("{}vx", self.link_prefix())
    }

    pub fn node_link(&self, node_name: &str) -> String {
        format!("{}n{:06x}", self.link_prefix(), netplan::names::hash(node_name) & 0xff_ffff)
    }

    /// The metric of the instance's routes.
    pub fn route_owner(&self) -> u32 {
        0x5300_0000 | (netplan::names::hash(&self.id) & 0xff_ffff) as u32
    }

    /// The same on every node of the cluster.
    pub fn vxlan_vni(&self) -> u32 {
        (netplan::names::hash(&self.id) & 0xff_fffe) as u32 + 1
    }

    pub fn proxy_table(&self) -> String {
        format!("skiff-{}", self.id)
    }

    pub fn node_table(&self) -> String {
        format!("skiff-{}/node", self.id)
    }

    pub fn policy_table(&self) -> String {
        format!("skiff-{}/policy", self.id)
    }

    pub fn tables(&self) -> [String; 3] {
        [self.proxy_table(), self.node_table(), self.policy_table()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ_between_instances() {
        let (a, b) = (Instance::new("a"), Instance::new("b"));
        for name in [a.pod_link("sandbox"), a.service_link(), a.vxlan_link(), a.node_link("node-1")] {
            assert!(name.len() <= 15, "{name}");
            assert!(name.starts_with(&a.link_prefix()));
            assert!(!name.starts_with(&b.link_prefix()));
        }
    }
}
