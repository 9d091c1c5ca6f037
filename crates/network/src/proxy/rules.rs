//! The proxy's tables in the kernel: remembers what the kernel has, applies the difference to what it must have, and
//! makes the kernel forget flows and affinities that lead nowhere. Blocking.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};

use netplan::nft::{Batch, Family, Op, Value, create, diff};
use netplan::proxy::{ProxyPlan, stale_affinity, stale_flows};

use crate::nft::Nft;
use crate::{Instance, NetNs, Result};

#[derive(Debug)]
pub struct Rules {
    nft: Nft,
    netns: NetNs,
    table: String,
    /// None: unknown, so everything is made anew.
    current: Option<ProxyPlan>,
}

impl Rules {
    pub fn open(netns: &NetNs, instance: &Instance) -> Result<Self> {
        Ok(Rules { nft: Nft::open(netns)?, netns: netns.clone(), table: instance.proxy_table(), current: None })
    }

    /// Make the kernel agree with the plan.
    pub fn apply(&mut self, plan: ProxyPlan) -> Result<()> {
        let before = self.current.take();
        for family in Family::BOTH {
            let wanted = plan.table(family);
            let batch = match &before {
                Some(old) => diff(old.table(family), wanted),
                None => create(wanted),
            };
            self.nft.apply(family, &self.table, &batch)?;
            self.forget_affinities(family, &plan, &batch)?;
        }
        if before.as_ref().is_none_or(|old| plan.udp_changed(old)) {
            self.forget_flows(&plan)?;
        }
        self.current = Some(plan);
        Ok(())
    }

    /// An affinity map keeps leading a client to an endpoint after the endpoint is gone.
    fn forget_affinities(&self, family: Family, plan: &ProxyPlan, batch: &Batch) -> Result<()> {
        let table = plan.table(family);
        for (name, set) in table.sets.iter().filter(|(_, set)| set.dynamic) {
            let endpoints = name.replace("-affinity", "-endpoints");
            let lost = |op: &Op| matches!(op, Op::DeleteElements { set, .. } if *set == endpoints);
            if !batch.ops.iter().any(lost) {
                continue;
            }
            let elements = self.nft.elements(family, &self.table, name, set)?;
            for key in stale_affinity(table, name, elements.iter().map(|(k, v)| (k, v))) {
                let op = Op::DeleteElements { set: name.clone(), elements: [(key, Value::None)].into() };
                match self.nft.apply(family, &self.table, &Batch { ops: vec![op] }) {
                    // It may have run out meanwhile.
                    Err(e) if e.is_not_found() => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    fn forget_flows(&self, plan: &ProxyPlan) -> Result<()> {
        for family in Family::BOTH {
            let flows = self.nft.udp_flows(family)?;
            let destinations: BTreeSet<IpAddr> = flows.iter().map(|f| f.udp.destination.0).collect();
            let local = self.local_among(&destinations)?;
            for flow in flows.iter().filter(|f| stale_flows(plan, &f.udp, |ip| local.contains(&ip))) {
                self.nft.delete_flow(family, flow)?;
            }
        }
        Ok(())
    }

    /// Which addresses are the node's own: those a socket can be bound to.
    fn local_among(&self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>> {
        self.netns.run(|| addresses.iter().filter(|ip| UdpSocket::bind((**ip, 0)).is_ok()).copied().collect())
    }
}
