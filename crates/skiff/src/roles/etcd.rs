//! The flags that name an etcd cluster, and opening the store behind them. `kube-apiserver` and `skiff datastore` have them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;

use super::kube_apiserver::duration;

/// Upstream's.
#[derive(Args, Clone)]
#[group(id = "etcd")]
pub struct Flags {
    /// An etcd v3 cluster instead of the embedded datastore, as https://10.0.0.1:2379,https://10.0.0.2:2379
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authorities that sign the certificates of etcd's servers
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd
    #[arg(long, requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    #[arg(long, requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
}

impl Flags {
    pub async fn connect(&self) -> Result<Arc<dyn store::Store>> {
        let options = etcd::Options {
            ca_file: self.etcd_cafile.clone(),
            cert_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            prefix: self.etcd_prefix.clone(),
            ..etcd::Options::new(self.etcd_servers.iter().cloned())
        };
        let servers = self.etcd_servers.join(",");
        let store = etcd::Etcd::connect(options).await.with_context(|| format!("connecting to etcd at {servers}"))?;
        Ok(Arc::new(store))
    }
}

/// How an API server looks after its store.
#[derive(Args)]
#[group(id = "storage")]
pub struct Upkeep {
    /// How often history older than as long is forgotten; 0s: never
    #[arg(long, default_value = "5m0s")]
    etcd_compaction_interval: String,
    /// How long the store may take to answer /livez and /readyz
    #[arg(long, default_value = "2s")]
    etcd_healthcheck_timeout: String,
}

impl Upkeep {
    pub fn apply(&self, config: &mut apiserver::Config) -> Result<()> {
        config.compaction_interval = duration(&self.etcd_compaction_interval).context("--etcd-compaction-interval")?;
        config.store_check_timeout = duration(&self.etcd_healthcheck_timeout).context("--etcd-healthcheck-timeout")?;
        Ok(())
    }
}
