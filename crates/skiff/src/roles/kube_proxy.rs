//! `skiff kube-proxy`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use client::Informers;
use network::{NetNs, Proxy, ProxyOptions};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    /// This node's name [default: the host's name]
    #[arg(long)]
    hostname_override: Option<String>,
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16")]
    cluster_cidr: Vec<ipnet::IpNet>,
    #[arg(long)]
    masquerade_all: bool,
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: SocketAddr,
    /// The cluster's id on this machine, where several run side by side
    #[arg(long, default_value = "0")]
    instance: String,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| async move {
        let client = client::from_kubeconfig_named(&flags.kubeconfig, "kube-proxy").await?;
        let options = ProxyOptions {
            instance: network::Instance::new(&flags.instance),
            node_name: super::kubelet::node_name(flags.hostname_override.as_deref())?,
            netns: NetNs::current()?,
            cluster_cidrs: flags.cluster_cidr.clone(),
            masquerade_all: flags.masquerade_all,
            local_vips: std::collections::BTreeSet::new(),
            healthz: Some(flags.healthz_bind_address),
        };
        Proxy::new(&Informers::new(client), options).run(cancel).await.context("proxying services")
    })
}
