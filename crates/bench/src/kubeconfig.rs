//! Reads of a kubeconfig what is needed to connect: the current context's server, its CA, and a client's certificate or token.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

pub struct Access {
    /// `host:port`
    pub address: String,
    pub host: String,
    pub tls: Arc<rustls::ClientConfig>,
    pub token: Option<String>,
}

/// `against` replaces the server named in the file.
pub fn read(path: &Path, against: Option<&str>) -> Result<Access> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: Value = serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    let context = named(&config["contexts"], &config["current-context"])?["context"].clone();
    let cluster = named(&config["clusters"], &context["cluster"])?["cluster"].clone();
    let user = named(&config["users"], &context["user"])?["user"].clone();

    let server = against.or(cluster["server"].as_str()).context("the kubeconfig names no server")?;
    let rest = server.strip_prefix("https://").context("only https:// servers can be measured")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let (host, address) = match authority.rsplit_once(':') {
        Some((host, _)) => (host, authority.to_owned()),
        None => (authority, format!("{authority}:443")),
    };
    let host = host.trim_matches(['[', ']']).to_owned();

    let mut roots = RootCertStore::empty();
    let ca = data(&cluster, "certificate-authority")?.context("the kubeconfig has no certificate authority")?;
    for certificate in CertificateDer::pem_slice_iter(&ca) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let tls = match (data(&user, "client-certificate")?, data(&user, "client-key")?) {
        (Some(certificates), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificates).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    let token = user["token"].as_str().map(str::to_owned);
    Ok(Access { address, host, tls: Arc::new(tls), token })
}

fn named<'a>(list: &'a Value, name: &Value) -> Result<&'a Value> {
    match list.as_array().and_then(|all| all.iter().find(|e| &e["name"] == name)) {
        Some(entry) => Ok(entry),
        None => bail!("the kubeconfig has no entry named {name}"),
    }
}

/// An entry given inline (`name-data`, base64) or as a file.
fn data(entry: &Value, name: &str) -> Result<Option<Vec<u8>>> {
    if let Some(text) = entry[format!("{name}-data")].as_str() {
        return Ok(Some(base64::engine::general_purpose::STANDARD.decode(text.trim())?));
    }
    entry[name].as_str().map(|path| std::fs::read(path).with_context(|| format!("reading {path}"))).transpose()
}
