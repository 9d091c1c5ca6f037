//! Asks the cluster for one of a node's certificates, by a CertificateSigningRequest, and keeps what is issued. When to ask is
//! decided in `node_certificates`; approving and signing are the controller manager's, or an administrator's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::pki;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::instance::{make_private, write_atomically};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
/// How often a request is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A request that nobody answered is made anew, as upstream does.
const ANSWER_WITHIN: Duration = Duration::from_secs(15 * 60);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One of a node's certificates.
pub struct Wanted {
    signer: &'static str,
    usage: &'static str,
    node: String,
    sans: Vec<String>,
    /// Certificate and key, in one file.
    pub file: PathBuf,
    /// Where the key of the first request waits for its answer.
    pending: Option<PathBuf>,
}

impl Wanted {
    /// The very first one, asked for by who is no node yet: over all restarts there is one request.
    pub fn first(dir: &Path, node: &str) -> Self {
        Self { pending: Some(dir.join("kubelet-client.key.tmp")), ..Self::client(dir, node) }
    }

    pub fn client(dir: &Path, node: &str) -> Self {
        let file = dir.join("kubelet-client-current.pem");
        Self { signer: CLIENT, usage: "client auth", node: node.to_owned(), sans: Vec::new(), file, pending: None }
    }

    /// To serve with, under these names and addresses.
    pub fn serving(dir: &Path, node: &str, sans: Vec<String>) -> Self {
        let file = dir.join("kubelet-server-current.pem");
        Self { signer: SERVING, usage: "server auth", node: node.to_owned(), sans, file, pending: None }
    }

    fn usages(&self) -> [&str; 2] {
        ["digital signature", self.usage]
    }

    /// The key that is waiting for an answer, or a new one.
    fn request(&self) -> Result<pki::Request> {
        let make = |key: Option<&str>| pki::Request::new(key, &format!("system:node:{}", self.node), "system:nodes", &self.sans);
        let Some(pending) = &self.pending else { return Ok(make(None)?) };
        match std::fs::read_to_string(pending) {
            // A broken file is no key to wait for.
            Ok(key) if make(Some(&key)).is_ok() => return Ok(make(Some(&key))?),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", pending.display())),
        }
        let request = make(None)?;
        write_atomically(pending, request.key_pem().as_bytes())?;
        Ok(request)
    }

    /// Asks once, waits for the answer, and keeps what is issued.
    async fn ask(&self, client: &Client) -> Result<()> {
        if let Some(dir) = self.file.parent() {
            make_private(dir)?;
        }
        let request = self.request()?;
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        let name = self.submit(&api, &request).await?;
        tracing::info!(request = name, signer = self.signer, "asked for a certificate");
        let issued = tokio::time::timeout(ANSWER_WITHIN, issued(&api, &name)).await;
        let certificate = issued.with_context(|| format!("nobody approved the request {name}"))??;
        if !request.is_answered_by(&certificate) {
            bail!("what was issued for the request {name} is no certificate of its key");
        }
        write_atomically(&self.file, format!("{}\n{}", certificate.trim_end(), request.key_pem()).as_bytes())?;
        if let Some(pending) = &self.pending {
            std::fs::remove_file(pending).with_context(|| format!("removing {}", pending.display()))?;
        }
        Ok(())
    }

    /// Answers the request's name.
    async fn submit(&self, api: &Api<CertificateSigningRequest>, request: &pki::Request) -> Result<String> {
        let metadata = match self.pending {
            Some(_) => json!({ "name": format!("node-csr-{}", URL_SAFE_NO_PAD.encode(request.digest(&self.usages()))) }),
            None => json!({ "generateName": "csr-" }),
        };
        let asked: CertificateSigningRequest = serde_json::from_value(json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata,
            "spec": { "signerName": self.signer, "usages": self.usages(), "request": STANDARD.encode(&request.pem) },
        }))?;
        match api.create(&PostParams::default(), &asked).await {
            Ok(made) => made.metadata.name.context("a request without a name"),
            // The same key was asked for before a restart.
            Err(kube::Error::Api(status)) if status.code == 409 => asked.metadata.name.context("a request without a name"),
            Err(error) => Err(error).context("asking for a certificate"),
        }
    }

    /// Asks until there is one. `false`: this was cancelled before.
    pub async fn get(&self, client: &Client, cancel: &CancellationToken) -> bool {
        let mut pause = RETRY_FIRST;
        loop {
            let asked = tokio::select! { biased;
                () = cancel.cancelled() => return false,
                asked = self.ask(client) => asked,
            };
            match asked {
                Ok(()) => return true,
                Err(error) => tracing::warn!(signer = self.signer, "no certificate yet: {error:#}"),
            }
            tokio::select! { biased;
                () = cancel.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// The certificate in PEM, once the request was approved and signed.
async fn issued(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String> {
    loop {
        match api.get(name).await {
            Ok(request) => {
                if let Some(certificate) = answer(request)? {
                    return Ok(certificate);
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => bail!("the request {name} was deleted"),
            Err(error) => tracing::debug!(%error, "looking at a certificate request"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `None`: it is not answered yet.
fn answer(request: CertificateSigningRequest) -> Result<Option<String>> {
    let name = request.metadata.name.unwrap_or_default();
    let status = request.status.unwrap_or_default();
    if let Some(condition) = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed")) {
        let message = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        bail!("the request {name} is {}: {message}", condition.type_.to_lowercase());
    }
    status.certificate.map(|c| String::from_utf8(c.0).context("a certificate that is no text")).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_asked_again_with_the_key_that_waits() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted::first(dir.path(), "n");
        let key = wanted.request().unwrap().key_pem();
        assert_eq!(wanted.request().unwrap().key_pem(), key, "a restart does not ask for another key");
        assert_ne!(Wanted::client(dir.path(), "n").request().unwrap().key_pem(), key, "a renewal has a key of its own");
        std::fs::write(dir.path().join("kubelet-client.key.tmp"), "torn").unwrap();
        assert_ne!(wanted.request().unwrap().key_pem(), key);
    }

    #[test]
    fn an_answer_is_a_certificate_or_a_reason() {
        let of = |status: serde_json::Value| {
            let request = json!({ "metadata": { "name": "r" }, "spec": { "request": "", "signerName": CLIENT }, "status": status });
            answer(serde_json::from_value(request).unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!(of(json!({})), Ok(None));
        assert_eq!(of(json!({ "conditions": [{ "type": "Approved", "status": "True" }] })), Ok(None), "not signed yet");
        assert_eq!(of(json!({ "certificate": STANDARD.encode("PEM") })), Ok(Some("PEM".to_owned())));
        let no = |kind: &str| of(json!({ "conditions": [{ "type": kind, "status": "True", "message": "no" }] }));
        assert_eq!(no("Denied"), Err("the request r is denied: no".to_owned()));
        assert_eq!(no("Failed"), Err("the request r is failed: no".to_owned()));
    }
}
