//! `skiff kube-scheduler`

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use client::{Clock, Election, Entropy, Informers, Leadership};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| async move {
        let client = client::from_kubeconfig_named(&flags.kubeconfig, "kube-scheduler").await?;
        let config = scheduler::Config::default();
        let informers = Informers::new(client.clone());
        if !flags.leader_elect {
            return Ok(scheduler::run(config, client, &informers, cancel).await?);
        }
        let election = Election::new("kube-scheduler", &super::kube_controller_manager::identity());
        let mut leadership = Leadership::new(client.clone(), election, Clock::System, Entropy::from_system());
        tokio::select! { biased;
            () = cancel.cancelled() => return Ok(()),
            () = leadership.acquire() => {}
        }
        tokio::select! { biased;
            ended = scheduler::run(config, client, &informers, cancel) => ended?,
            () = leadership.hold() => anyhow::bail!("the lease was lost to another scheduler"),
        }
        leadership.release().await.context("giving the lease back")
    })
}
