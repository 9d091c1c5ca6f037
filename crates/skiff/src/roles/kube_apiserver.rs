//! `skiff kube-apiserver`

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use apiserver::Handle;
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::duration;
use crate::instance::{make_private, write_atomically};
use crate::snapshots::Datastore;

/// Upstream's main flags, and `--data-dir` for the embedded datastore.
#[derive(Args)]
pub struct Flags {
    /// Where the datastore, the PKI and admin.kubeconfig are kept
    #[arg(long)]
    data_dir: PathBuf,
    /// The folder of certificates and keys; missing ones are made [default: DATA_DIR/pki]
    #[arg(long)]
    cert_dir: Option<PathBuf>,
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// 0: any free port
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16")]
    service_cluster_ip_range: Vec<String>,
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
    /// The first is that of new tokens, all are taken
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    service_account_issuer: Vec<String>,
    #[command(flatten)]
    authentication: super::authentication::Flags,
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Minutes or hours, as 1h
    #[arg(long, default_value = "1h")]
    event_ttl: String,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    anonymous_auth: bool,
    /// Nodes whose kubelets get a kubeconfig beside admin.kubeconfig
    #[arg(long, value_delimiter = ',')]
    node_names: Vec<String>,
    #[command(flatten)]
    authorization: super::authentication::Authorization,
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// What single plugins are told (AdmissionConfiguration)
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// Privileged pods are always allowed to be asked for; PodSecurity decides
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    allow_privileged: bool,
    #[command(flatten)]
    etcd: super::etcd::Flags,
    #[command(flatten)]
    upkeep: super::etcd::Upkeep,
    #[command(flatten)]
    snapshots: crate::snapshots::Flags,
    #[command(flatten)]
    serving: super::serving::Flags,
}

pub fn run(flags: &Flags) -> Result<()> {
    super::run(|cancel| {
        serve(flags, cancel, async |_, cancel| {
            cancel.cancelled().await;
            Ok(())
        })
    })
}

/// Runs the server and what is beside it in this process; ends when that does.
pub async fn serve(
    flags: &Flags,
    cancel: CancellationToken,
    beside: impl AsyncFnOnce(&Handle, CancellationToken) -> Result<()>,
) -> Result<()> {
    if !flags.allow_privileged {
        bail!("--allow-privileged=false is not supported: use the PodSecurity labels of namespaces");
    }
    let config = config(flags)?;
    make_private(&flags.data_dir)?;
    let plan = flags.snapshots.plan(&flags.data_dir)?;
    let mut snapshots = JoinSet::new();
    tracing::debug!("opening the datastore");
    let datastore = Datastore::open(flags.etcd.cluster()?.as_ref(), &flags.data_dir).await?;
    plan.map(|plan| snapshots.spawn(plan.run(datastore.clone(), cancel.clone())));
    let store = datastore.store();
    tracing::debug!("the datastore is open");
    let handle = apiserver::Server::start(config, store).await.context("starting the API server")?;
    let url = format!("https://127.0.0.1:{}", handle.local_addr.port());
    write_admin_kubeconfig(&handle, &url, &flags.data_dir.join("admin.kubeconfig"))?;
    for user in ["system:kube-controller-manager", "system:kube-scheduler"] {
        let stem = user.trim_start_matches("system:kube-");
        write_kubeconfig(&handle, &url, stem, user, &[], &flags.data_dir.join(format!("{stem}.kubeconfig")))?;
    }
    for name in &flags.node_names {
        let (stem, user) = (format!("kubelet-{name}"), format!("system:node:{name}"));
        write_kubeconfig(&handle, &url, &stem, &user, &["system:nodes"], &flags.data_dir.join(format!("{stem}.kubeconfig")))?;
    }
    tracing::info!(%url, kubeconfig = %flags.data_dir.join("admin.kubeconfig").display(), "ready");
    let ended = tokio::select! { biased;
        // As etcd ends: what the disk keeps is known when it is read again, by a new process.
        error = datastore.failed() => Err(error),
        ended = beside(&handle, cancel.clone()) => ended,
    };
    cancel.cancel();
    handle.shutdown().await;
    snapshots.join_all().await;
    ended
}

impl Flags {
    /// Other servers may have the same etcd.
    pub fn shares_its_store(&self) -> bool {
        !self.etcd.etcd_servers.is_empty()
    }
}

fn config(flags: &Flags) -> Result<apiserver::Config> {
    let mut config = apiserver::Config::new(flags.cert_dir.clone().unwrap_or_else(|| flags.data_dir.join("pki")));
    config.bind_address = flags.bind_address;
    config.secure_port = flags.secure_port;
    config.advertise_address = flags.advertise_address;
    config.service_cluster_ip_ranges.clone_from(&flags.service_cluster_ip_range);
    config.service_node_ports = ports(&flags.service_node_port_range)?;
    let (first, more) = flags.service_account_issuer.split_first().context("--service-account-issuer: one is needed")?;
    config.service_account_issuer.clone_from(first);
    config.authentication.service_account.accepted_issuers = more.to_vec();
    flags.authentication.apply(&mut config)?;
    flags.authorization.apply(&mut config)?;
    config.api_audiences.clone_from(&flags.api_audiences);
    config.event_ttl = duration("event-ttl", &flags.event_ttl)?;
    config.anonymous_auth = flags.anonymous_auth;
    config.enable_admission_plugins.clone_from(&flags.enable_admission_plugins);
    config.disable_admission_plugins.clone_from(&flags.disable_admission_plugins);
    config.shared_store = flags.shares_its_store();
    flags.upkeep.apply(&mut config)?;
    config.admission_control_config_file.clone_from(&flags.admission_control_config_file);
    flags.serving.apply(&mut config)?;
    Ok(config)
}

/// Issues an administrator's certificate and writes a kubeconfig with it.
pub fn write_admin_kubeconfig(handle: &Handle, url: &str, path: &std::path::Path) -> Result<()> {
    write_kubeconfig(handle, url, "admin", "kubernetes-admin", &["system:masters"], path)
}

/// Issues a certificate for a user and writes a kubeconfig with it.
fn write_kubeconfig(handle: &Handle, url: &str, stem: &str, user: &str, groups: &[&str], path: &std::path::Path) -> Result<()> {
    let pki = handle.pki();
    let identity = pki.client(stem, user, groups).with_context(|| format!("issuing the certificate of {user}"))?;
    let text = apiserver::pki::kubeconfig("skiff", user, url, pki.ca_pem(), &identity);
    write_atomically(path, text.as_bytes())
}

/// `30000-32767`
fn ports(text: &str) -> Result<(u16, u16)> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)));
    parsed.filter(|(a, b)| a <= b).with_context(|| format!("--service-node-port-range {text}: must be as 30000-32767"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_are_texts() {
        assert_eq!(ports("30000-32767").unwrap(), (30000, 32767));
        assert!(ports("5-4").is_err() && ports("x").is_err());
    }
}
