//! A kubelet's certificates by request: the first client certificate with a bootstrap kubeconfig's rights, newer ones before they
//! end, and serving certificates where the cluster is to sign them. Called by the kubelet's role. What happens to a request is
//! the controller manager's (`csrapproving`, `csrsigning`); serving certificates are approved by an administrator.

mod request;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::pki;
use clap::Args;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::instance::write_atomically;
use request::Wanted;

/// A certificate whose renewal is due already when the kubelet begins with it lives shorter than anybody means.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(10);

#[derive(Args)]
#[group(id = "node_certificates")]
pub struct Flags {
    /// Whose rights the first client certificate is asked for with, where --kubeconfig is not there yet or its certificate has
    /// ended
    #[arg(long)]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// Where certificates that were asked for are kept
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    cert_dir: PathBuf,
    /// Ask for a new client certificate before the old one ends
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    rotate_certificates: bool,
    /// Ask for a serving certificate, and for new ones before it ends, instead of --tls-cert-file
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    rotate_server_certificates: bool,
}

/// Unix seconds a certificate is good from and to, of a file.
fn validity(file: &Path) -> Option<(i64, i64)> {
    pki::validity(&std::fs::read_to_string(file).ok()?)
}

/// How long until a new one is asked for: when seven to nine tenths of its time are over, as upstream. At once where there is none.
fn until_renewal(file: &Path, now: i64, chance: f64) -> Duration {
    let Some((from, to)) = validity(file).filter(|(_, to)| *to > now) else { return Duration::ZERO };
    let at = from as f64 + (to - from) as f64 * (0.7 + 0.2 * chance);
    Duration::try_from_secs_f64(at - now as f64).unwrap_or(Duration::ZERO).max(RENEW_AFTER_MIN)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Flags {
    /// Sees to it that there is a kubeconfig with a certificate that is still good.
    pub async fn first(&self, kubeconfig: &Path, node: &str, cancel: &CancellationToken) -> Result<()> {
        let Some(bootstrap) = &self.bootstrap_kubeconfig else { return Ok(()) };
        let wanted = Wanted::first(&self.cert_dir, node);
        let known = match std::fs::read_to_string(kubeconfig) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("reading {}", kubeconfig.display())),
        };
        match lacking(known.as_deref(), &wanted.file, validity(&wanted.file), now()) {
            Lacking::Nothing => return Ok(()),
            Lacking::Kubeconfig => {}
            Lacking::Certificate => {
                let client = client::from_kubeconfig_named(bootstrap, "kubelet").await?;
                if !wanted.get(&client, cancel).await {
                    bail!("stopped before there was a certificate");
                }
            }
        }
        let text = std::fs::read(bootstrap).with_context(|| format!("reading {}", bootstrap.display()))?;
        let config = machinery::yaml::parse(&text).with_context(|| format!("{} is no kubeconfig", bootstrap.display()))?.value;
        write_atomically(kubeconfig, with_certificate(config, &wanted.file)?.to_string().as_bytes())
    }

    /// Certificate and key to serve with, where the cluster signs them and has.
    pub fn serving(&self) -> Result<Option<String>> {
        let file = self.cert_dir.join("kubelet-server-current.pem");
        if !self.rotate_server_certificates || validity(&file).is_none_or(|(_, to)| to <= now()) {
            return Ok(None);
        }
        Ok(Some(std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?))
    }

    pub fn signs_serving(&self) -> bool {
        self.rotate_server_certificates
    }

    /// Returns `true` when a newer certificate lies in its place, and the kubelet has to begin anew with it; `false`: cancelled.
    pub async fn rotate(&self, client: &Client, node: &str, addresses: &[IpAddr], cancel: &CancellationToken) -> bool {
        let mut all = Vec::new();
        let own = Wanted::client(&self.cert_dir, node);
        if self.rotate_certificates && own.file.exists() {
            all.push(own);
        }
        if self.rotate_server_certificates {
            let sans = std::iter::once(node.to_owned()).chain(addresses.iter().map(IpAddr::to_string)).collect();
            all.push(Wanted::serving(&self.cert_dir, node, sans));
        }
        if all.is_empty() {
            cancel.cancelled().await;
            return false;
        }
        let entropy = client::Entropy::from_system();
        let renewals: Vec<_> = all
            .iter()
            .map(|wanted| {
                let wait = until_renewal(&wanted.file, now(), entropy.below(1000) as f64 / 1000.0);
                Box::pin(async move {
                    tokio::time::sleep(wait).await;
                    wanted.get(client, cancel).await
                })
            })
            .collect();
        tokio::select! { biased;
            () = cancel.cancelled() => false,
            (renewed, ..) = futures::future::select_all(renewals) => renewed,
        }
    }
}

/// What a kubelet lacks to speak to the API server.
#[derive(Debug, PartialEq, Eq)]
enum Lacking {
    Nothing,
    Kubeconfig,
    Certificate,
}

/// From its kubeconfig's text, if there is one, and from when to when the certificate in a file is good.
fn lacking(kubeconfig: Option<&str>, file: &Path, validity: Option<(i64, i64)>, now: i64) -> Lacking {
    let good = validity.is_some_and(|(_, to)| to > now);
    match kubeconfig {
        // Somebody gave it other credentials.
        Some(text) if !text.contains(&*file.to_string_lossy()) => Lacking::Nothing,
        Some(_) if good => Lacking::Nothing,
        None if good => Lacking::Kubeconfig,
        Some(_) | None => Lacking::Certificate,
    }
}

/// The same server, with the certificate in place of whoever was named.
fn with_certificate(mut config: Value, file: &Path) -> Result<Value> {
    let file = std::path::absolute(file).context("finding the certificate's folder")?;
    for user in config["users"].as_array_mut().context("a kubeconfig without users")? {
        user["user"] = json!({ "client-certificate": file, "client-key": file });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.pem");
        assert_eq!(until_renewal(&file, now(), 0.5), Duration::ZERO, "there is none");
        let own = pki::Identity::self_signed("n", &["n".to_owned()]).unwrap();
        std::fs::write(&file, own.cert_pem).unwrap();
        let (from, to) = validity(&file).unwrap();
        let life = (to - from) as f64;
        for (chance, share) in [(0.0, 0.7), (1.0, 0.9)] {
            let wait = until_renewal(&file, from, chance).as_secs_f64();
            assert!((wait / life - share).abs() < 0.001, "{wait} of {life}");
        }
        assert_eq!(until_renewal(&file, to - 1, 0.5), RENEW_AFTER_MIN, "late, but never over and over");
        assert_eq!(until_renewal(&file, to, 0.5), Duration::ZERO, "it has ended");
    }

    #[test]
    fn a_certificate_is_asked_for_where_there_is_none_that_is_good() {
        let file = Path::new("/pki/c.pem");
        let (own, others) = (Some("client-key: /pki/c.pem"), Some("client-key-data: eA=="));
        for (kubeconfig, validity, lacks) in [
            (None, None, Lacking::Certificate),
            (None, Some((0, 50)), Lacking::Certificate),
            (None, Some((0, 150)), Lacking::Kubeconfig),
            (own, Some((0, 150)), Lacking::Nothing),
            (own, Some((0, 100)), Lacking::Certificate),
            (own, None, Lacking::Certificate),
            (others, None, Lacking::Nothing),
            (others, Some((0, 50)), Lacking::Nothing),
        ] {
            assert_eq!(lacking(kubeconfig, file, validity, 100), lacks, "{kubeconfig:?} {validity:?}");
        }
    }

    #[test]
    fn a_kubeconfig_takes_the_servers_and_names_the_certificate() {
        let config = json!({ "clusters": [{ "name": "c" }], "users": [{ "name": "u", "user": { "token": "abcdef.0123456789abcdef" } }] });
        let written = with_certificate(config, Path::new("/pki/c.pem")).unwrap();
        let user = json!({ "client-certificate": "/pki/c.pem", "client-key": "/pki/c.pem" });
        assert_eq!(written, json!({ "clusters": [{ "name": "c" }], "users": [{ "name": "u", "user": user }] }));
        assert!(with_certificate(json!({}), Path::new("/c")).is_err());
    }
}
