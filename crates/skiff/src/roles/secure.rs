//! Upstream's flags of where a component tells of itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::component::{Component, Secure, Serving};

#[derive(Args)]
#[group(id = "secure")]
pub struct Flags {
    /// Where health and metrics are served
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// 0: they are not [default: upstream's port of the component]
    #[arg(long)]
    secure_port: Option<u16>,
    /// [default: a certificate that is made at the start]
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Clients with a certificate of one of these CAs are known by it
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

impl Flags {
    /// Takes the port; `None` where nothing is to be served.
    pub async fn bind(&self, component: Component, port: u16) -> Result<Option<Serving>> {
        let port = self.secure_port.unwrap_or(port);
        if port == 0 {
            return Ok(None);
        }
        let (certificate, key) = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => (read(certificate)?, read(key)?),
            _ => {
                let own = apiserver::pki::Identity::self_signed("localhost", &["localhost".to_owned(), "127.0.0.1".to_owned()])?;
                (own.cert_pem, own.key_pem)
            }
        };
        let ca = self.client_ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
        let address = SocketAddr::new(self.bind_address, port);
        let secure = Secure { address, certificate_pem: &certificate, key_pem: &key, client_ca_pem: &ca };
        Serving::bind(component, &secure).await.map(Some)
    }
}
