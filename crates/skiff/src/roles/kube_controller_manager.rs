//! `skiff kube-controller-manager`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use client::{Client, Clock, Registry};
use controller_runtime::ControllerManager;
use tokio_util::sync::CancellationToken;

use super::credentials::Credentials;
use crate::component::{self, Component};

#[derive(Args)]
pub struct Flags {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[command(flatten)]
    election: super::election::Flags,
    #[command(flatten)]
    secure: super::secure::Flags,
    /// Pods of the whole cluster; each node gets a part
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: String,
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
    /// Put into every namespace for pods to trust the API server by
    #[arg(long)]
    root_ca_file: PathBuf,
    /// The CA that approved certificate requests are signed with; none: they are not
    #[arg(long, requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    #[arg(long, requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// How long such certificates live at most
    #[arg(long, default_value = "8760h")]
    cluster_signing_duration: String,
    /// The key that tokens in Secrets are signed with
    #[arg(long)]
    service_account_private_key_file: Option<PathBuf>,
    /// Each controller acts as a ServiceAccount of its own, with its own role's rights
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    use_service_account_credentials: bool,
    /// `-name` switches a controller off
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, default_value = "*")]
    controllers: Vec<String>,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| async move {
        let registry = component::counts(&[]);
        let client = client::from_kubeconfig_metered(&flags.kubeconfig, "kube-controller-manager", registry.clone()).await?;
        let config = configured(flags, &registry)?;
        let (health, shown) = (component::CONTROLLER_MANAGER_HEALTH, crate::configz::controllers(&config));
        let component = Component { health, registry: registry.clone(), config: shown, client: client.clone() };
        let serving = flags.secure.bind(component, component::CONTROLLER_MANAGER_PORT).await?;
        super::observed(serving, &cancel, control(flags, config, client, registry, cancel.clone())).await
    })
}

/// What the flags say.
fn configured(flags: &Flags, registry: &Arc<Registry>) -> Result<controller_runtime::Config> {
    let ca = std::fs::read_to_string(&flags.root_ca_file).with_context(|| format!("reading {}", flags.root_ca_file.display()))?;
    let mut config = settings(&flags.cluster_cidr, flags.node_cidr_mask_size, &ca);
    let ca = flags.cluster_signing_cert_file.as_deref().zip(flags.cluster_signing_key_file.as_deref());
    config.controllers.keys = crate::signer::of_files(ca, flags.service_account_private_key_file.as_deref())?;
    let most = super::duration("cluster-signing-duration", &flags.cluster_signing_duration)?;
    config.controllers.certificate_seconds = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
    config.election = flags.election.election("kube-controller-manager")?;
    if let Some(election) = &mut config.election {
        election.metrics = Some(registry.clone());
    }
    config.metrics = Some(registry.clone());
    config.disabled = flags.controllers.iter().filter_map(|c| c.strip_prefix('-').map(str::to_owned)).collect();
    Ok(config)
}

async fn control(
    flags: &Flags,
    config: controller_runtime::Config,
    client: Client,
    registry: Arc<Registry>,
    cancel: CancellationToken,
) -> Result<()> {
    if !flags.use_service_account_credentials {
        return ControllerManager::run(config, move |_| client.clone(), cancel).await.context("running the controllers");
    }
    let credentials = Credentials::new(&flags.kubeconfig, client.clone(), controller_runtime::identities(), &registry).await?;
    let clients = credentials.clients.clone();
    let client_for = move |name: &str| clients.get(name).unwrap_or(&client).clone();
    let ended = cancel.child_token();
    let (run, ()) = tokio::join!(
        async {
            let run = ControllerManager::run(config, client_for, cancel).await;
            ended.cancel();
            run
        },
        credentials.keep(ended.clone())
    );
    run.context("running the controllers")
}

/// What the controllers of a cluster need to know.
pub fn settings(cluster_cidr: &str, mask: u8, ca: &str) -> controller_runtime::Config {
    let mut config = controller_runtime::Config::default();
    config.controllers.cluster_cidrs = cluster_cidr.split(',').map(str::to_owned).collect();
    config.controllers.node_cidr_mask_v4 = mask;
    config.controllers.root_ca = ca.to_owned();
    config.controllers.started_at = Clock::System.now();
    config
}

/// Host name and a number that no other process has: who holds a lease.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), client::Entropy::from_system().next_u64())
}
