//! `skiff kube-scheduler`

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use client::{Clock, Entropy, Informers, Leadership};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(flatten)]
    election: super::election::Flags,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| async move {
        let client = client::from_kubeconfig_named(&flags.kubeconfig, "kube-scheduler").await?;
        let config = scheduler::Config::default();
        let informers = Informers::new(client.clone());
        let Some(election) = flags.election.election("kube-scheduler")? else {
            return Ok(scheduler::run(config, client, &informers, cancel).await?);
        };
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
