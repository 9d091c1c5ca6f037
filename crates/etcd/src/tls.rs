//! The client's side of connections to etcd: TCP that gives up on a peer which stays silent, and TLS with a client
//! certificate where the address says https.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use store::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::options::Options;

/// How long the peer may leave what was sent unacknowledged: the kernel then ends the connection.
const SILENCE_MAX_MS: u32 = 3000;

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Reads the certificates that the flags name.
pub fn client_config(options: &Options) -> Result<Arc<ClientConfig>> {
    let bad = |what: &str, path: &Path, why: &dyn std::fmt::Display| Error::Open(format!("{what} {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for certificate in certificates.map_err(|e| bad("--etcd-cafile", path, &e))? {
            roots.add(certificate).map_err(|e| bad("--etcd-cafile", path, &e))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Open(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let chain = chain.map_err(|e| bad("--etcd-certfile", cert, &e))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("--etcd-keyfile", key, &e))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| bad("--etcd-certfile", cert, &e))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Error::Open("--etcd-certfile and --etcd-keyfile go together".into())),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects to `host:port`.
pub async fn connect(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Io>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, SILENCE_MAX_MS)?;
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    Ok(Box::new(tokio_rustls::TlsConnector::from(config).connect(name, stream).await?))
}
