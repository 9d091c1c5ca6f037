//! `skiff kube-scheduler`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use client::Informers;

use crate::component::{self, Component};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(flatten)]
    election: super::election::Flags,
    #[command(flatten)]
    secure: super::secure::Flags,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| async move {
        let registry = component::counts(scheduler::metrics::ALL);
        let client = client::from_kubeconfig_metered(&flags.kubeconfig, "kube-scheduler", registry.clone()).await?;
        let election = flags.election.election("kube-scheduler")?;
        let shown = crate::configz::scheduler(&scheduler::Config::default(), election.as_ref());
        let component =
            Component { health: component::SCHEDULER_HEALTH, registry: registry.clone(), config: shown, client: client.clone() };
        let serving = flags.secure.bind(component, component::SCHEDULER_PORT).await?;
        let informers = Informers::new(client.clone());
        super::observed(serving, &cancel, super::control_plane::schedule(client, &informers, election, registry, cancel.clone())).await
    })
}
