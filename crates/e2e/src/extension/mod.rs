//! A server that extends the API: admission and conversion webhooks and an aggregated API, in a pod behind a Service. Here is
//! how a test packs and deploys it; [`server`] is what runs in the pod.

mod admission;
mod discover;
mod fetch;
mod guestbook;
mod handlers;
pub mod server;
mod things;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::archive::{Entry, docker, layer};
use crate::{Cluster, eventually_within};

pub const IMAGE: &str = "example.test/extension:v1";
pub const NAME: &str = "extension";
const PORT: u16 = 8443;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A deployed server.
pub struct Extension {
    pub ca_pem: String,
}

impl Extension {
    /// Packs the program and what it is linked to, loads the image and runs `replicas` pods of it behind the Service
    /// `default/extension`. Returns when all are ready.
    pub fn deploy(cluster: &Cluster, program: &Path, replicas: usize) -> Result<Self> {
        load(cluster, program)?;
        let (ca_pem, cert_pem, key_pem) = certificates()?;
        let proxy_ca = cluster.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")?;
        let proxy_ca = proxy_ca["data"]["requestheader-client-ca-file"].as_str().context("a CA of front proxies")?.to_owned();
        let env = json!([{"name": "CERT", "value": cert_pem}, {"name": "KEY", "value": key_pem}, {"name": "PROXY_CA", "value": proxy_ca},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
        let container = json!({"name": "server", "image": IMAGE, "imagePullPolicy": "Never", "env": env, "ports": [{"containerPort": PORT}],
            "readinessProbe": {"httpGet": {"scheme": "HTTPS", "path": "/healthz", "port": PORT}, "periodSeconds": 1}});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}}});
        cluster.request("POST", "/apis/apps/v1/namespaces/default/deployments", Some(&deployment))?;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": 443, "targetPort": PORT}]}});
        cluster.request("POST", "/api/v1/namespaces/default/services", Some(&service))?;
        eventually_within(PATIENCE, "the extension serves", || {
            let slices = cluster.get(
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dextension",
            )?;
            let endpoints =
                slices["items"].as_array().into_iter().flatten().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
            let ready = endpoints.filter(|e| e["conditions"]["ready"] == true).count();
            ensure!(ready == replicas, "{ready} of {replicas} are ready");
            Ok(())
        })?;
        Ok(Self { ca_pem })
    }

    pub fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(&self.ca_pem)
    }

    /// The `clientConfig` of a webhook at a path of the server.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"service": {"namespace": "default", "name": NAME, "path": path}, "caBundle": self.ca_bundle()})
    }
}

/// Makes the program an image of the cluster, without running it.
pub fn load(cluster: &Cluster, program: &Path) -> Result<()> {
    let mut files = vec![("server".to_owned(), std::fs::read(program)?)];
    for library in libraries(program)? {
        let name = library.to_string_lossy().trim_start_matches('/').to_owned();
        files.push((name, std::fs::read(&library).with_context(|| library.display().to_string())?));
    }
    let entries: Vec<Entry<'_>> = files.iter().map(|(name, bytes)| Entry::Program(name, bytes)).collect();
    let archive = cluster.dir().join("extension.tar");
    docker(&archive, IMAGE, layer(&entries)?, &["/server"])?;
    cluster.skiff(&["image", "load", archive.to_str().context("a path in UTF-8")?])?.ok()?;
    Ok(std::fs::remove_file(archive)?)
}

/// The files a program is linked to, by the names it knows them by.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("running ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A CA, and a certificate for the Service with its key.
fn certificates() -> Result<(String, String, String)> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "extension-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![format!("{NAME}.default.svc")])?.signed_by(&key, &issuer)?;
    Ok((ca.pem(), leaf.pem(), key.serialize_pem()))
}
