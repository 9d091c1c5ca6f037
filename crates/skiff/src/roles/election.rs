//! Upstream's flags of components of which one leads.

use anyhow::{Result, bail};
use clap::Args;
use client::Election;

use super::duration;

#[derive(Args)]
#[group(id = "election")]
pub struct Flags {
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Others take over when the leader has not renewed its lease for so long
    #[arg(long, default_value = "15s")]
    leader_elect_lease_duration: String,
    /// A leader that cannot renew its lease for so long stops leading
    #[arg(long, default_value = "10s")]
    leader_elect_renew_deadline: String,
    /// Between attempts to take or renew the lease
    #[arg(long, default_value = "2s")]
    leader_elect_retry_period: String,
    /// Only Leases are supported, as upstream
    #[arg(long, default_value = "leases")]
    leader_elect_resource_lock: String,
    /// [default: the component's name]
    #[arg(long)]
    leader_elect_resource_name: Option<String>,
    #[arg(long, default_value = "kube-system")]
    leader_elect_resource_namespace: String,
}

impl Flags {
    /// What to be elected to; `None`: the component runs without.
    pub fn election(&self, component: &str) -> Result<Option<Election>> {
        if !self.leader_elect {
            return Ok(None);
        }
        if self.leader_elect_resource_lock != "leases" {
            bail!("--leader-elect-resource-lock {}: only leases are supported", self.leader_elect_resource_lock);
        }
        let name = self.leader_elect_resource_name.as_deref().unwrap_or(component);
        let mut election = Election::new(name, &super::kube_controller_manager::identity());
        election.namespace.clone_from(&self.leader_elect_resource_namespace);
        election.lease_duration = duration("leader-elect-lease-duration", &self.leader_elect_lease_duration)?;
        election.renew_deadline = duration("leader-elect-renew-deadline", &self.leader_elect_renew_deadline)?;
        election.retry_period = duration("leader-elect-retry-period", &self.leader_elect_retry_period)?;
        // Or the old leader could still lead when the next one begins.
        if election.lease_duration <= election.renew_deadline {
            bail!("--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline");
        }
        if election.renew_deadline <= election.retry_period.mul_f64(1.2) {
            bail!("--leader-elect-renew-deadline must be greater than --leader-elect-retry-period times 1.2");
        }
        Ok(Some(election))
    }
}
