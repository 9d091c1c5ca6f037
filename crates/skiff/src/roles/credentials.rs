//! A token of its own for each controller of a controller manager that runs alone: so that each has its own role's rights and
//! no more (upstream's `--use-service-account-credentials`). Tokens are renewed in time; clients read them from private files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Registry;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::instance::{make_private, write_atomically};

const SECONDS: u32 = 3600;
/// Renewed when a fifth is left; kube's client reads the file again every minute.
const RENEW: Duration = Duration::from_secs(SECONDS as u64 * 4 / 5);
const RETRY: Duration = Duration::from_secs(10);

/// Clients by identity, and the task that keeps their tokens.
pub struct Credentials {
    pub clients: BTreeMap<&'static str, Client>,
    dir: tempfile::TempDir,
    manager: Client,
    identities: Vec<&'static str>,
}

impl Credentials {
    /// Makes the accounts and their first tokens, acting as the manager of the kubeconfig; requests are counted.
    pub async fn new(kubeconfig: &Path, manager: Client, identities: Vec<&'static str>, registry: &Arc<Registry>) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a folder for tokens")?;
        make_private(dir.path())?;
        let config = read(kubeconfig)?;
        let mut made = Self { clients: BTreeMap::new(), dir, manager, identities };
        for identity in made.identities.clone() {
            made.renew(identity).await.with_context(|| format!("getting a token for {identity}"))?;
            let path = made.dir.path().join(format!("{identity}.kubeconfig"));
            let own = with_token(&config, &made.token_file(identity));
            write_atomically(&path, own.to_string().as_bytes())?;
            made.clients.insert(identity, client::from_kubeconfig_metered(&path, "kube-controller-manager", registry.clone()).await?);
        }
        Ok(made)
    }

    fn token_file(&self, identity: &str) -> PathBuf {
        self.dir.path().join(format!("{identity}.token"))
    }

    async fn renew(&self, identity: &str) -> Result<()> {
        let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
        let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {"expirationSeconds": SECONDS, "audiences": []}});
        let path = format!("{accounts}/{identity}/token");
        let answer = match self.post(&path, &token).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": identity}});
                match self.post(accounts, &account).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    made => drop(made?),
                }
                self.post(&path, &token).await?
            }
            answer => answer?,
        };
        let token = answer["status"]["token"].as_str().context("the answer holds no token")?;
        write_atomically(&self.token_file(identity), token.as_bytes())
    }

    async fn post(&self, path: &str, body: &Value) -> kube::Result<Value> {
        let body = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request = http::Request::post(path).header("content-type", "application/json").body(body);
        self.manager.request(request.map_err(|e| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(e)))?).await
    }

    /// Renews until cancelled.
    pub async fn keep(self, cancel: CancellationToken) {
        let mut wait = RENEW;
        loop {
            tokio::select! { biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = RENEW;
            for identity in &self.identities {
                if let Err(error) = self.renew(identity).await {
                    tracing::warn!(identity, error = format!("{error:#}"), "a token was not renewed; trying again");
                    wait = RETRY;
                }
            }
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(machinery::yaml::parse(&text).with_context(|| format!("{} is no kubeconfig", path.display()))?.value)
}

/// The same server, with a token in place of whoever was named.
fn with_token(config: &Value, file: &Path) -> Value {
    let mut config = config.clone();
    for user in config["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"tokenFile": file});
    }
    config
}
