//! The flags that name an etcd cluster, and opening the store behind them. `kube-apiserver`, `skiff up` and `skiff datastore` have
//! them; an instance remembers what they said.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::duration;

/// Upstream's.
#[derive(Args, Clone)]
#[group(id = "etcd")]
pub struct Flags {
    /// An etcd v3 cluster instead of the embedded datastore, as https://10.0.0.1:2379,https://10.0.0.2:2379
    #[arg(long, env = "SKIFF_ETCD_SERVERS", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authorities that sign the certificates of etcd's servers
    #[arg(long, env = "SKIFF_ETCD_CAFILE")]
    etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd
    #[arg(long, env = "SKIFF_ETCD_CERTFILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    #[arg(long, env = "SKIFF_ETCD_KEYFILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(long, env = "SKIFF_ETCD_PREFIX", default_value = "/registry")]
    etcd_prefix: String,
}

/// Which etcd cluster, where in it, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub servers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cert_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    pub prefix: String,
}

impl Flags {
    /// `None`: no etcd is meant. Paths become absolute: whoever remembers this may run elsewhere.
    pub fn cluster(&self) -> Result<Option<Cluster>> {
        let path = |file: &Option<PathBuf>| file.as_ref().map(std::path::absolute).transpose();
        let servers: Vec<String> = self.etcd_servers.iter().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
        if servers.is_empty() {
            return Ok(None);
        }
        let (ca_file, cert_file, key_file) = (path(&self.etcd_cafile)?, path(&self.etcd_certfile)?, path(&self.etcd_keyfile)?);
        let prefix = format!("/{}", self.etcd_prefix.trim_matches('/'));
        Ok(Some(Cluster { servers, ca_file, cert_file, key_file, prefix }))
    }
}

impl Cluster {
    pub async fn connect(&self) -> Result<Arc<dyn store::Store>> {
        let options = etcd::Options {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            prefix: self.prefix.clone(),
            ..etcd::Options::new(self.servers.iter().cloned())
        };
        let store = etcd::Etcd::connect(options).await.with_context(|| format!("connecting to {self}"))?;
        Ok(Arc::new(store))
    }
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "etcd at {} under {}", self.servers.join(","), self.prefix)
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
        config.compaction_interval = duration("etcd-compaction-interval", &self.etcd_compaction_interval)?;
        config.store_check_timeout = duration("etcd-healthcheck-timeout", &self.etcd_healthcheck_timeout)?;
        Ok(())
    }
}
