//! `skiff kube-scheduler`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use client::Informers;

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
        let informers = Informers::new(client.clone());
        super::control_plane::schedule(client, &informers, flags.election.election("kube-scheduler")?, cancel).await
    })
}
