//! A GET over HTTP or HTTPS, from within a pod.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The body of a page that answers 200. `roots`: PEM of the CA, for HTTPS; `token`: of a ServiceAccount, or nothing.
pub async fn fetch(url: &str, roots: &[u8], token: &str) -> Result<Bytes> {
    let uri: Uri = url.parse()?;
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().context("a host")?.to_owned();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(if secure { 443 } else { 80 }))).await;
    let tcp = tcp.with_context(|| format!("connecting for {url}"))?;
    if !secure {
        return ask(tcp, &uri, token).await;
    }
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots) {
        store.add(root?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(store).with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, tcp).await;
    ask(tls.with_context(|| format!("the handshake for {url}"))?, &uri, token).await
}

async fn ask(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, uri: &Uri, token: &str) -> Result<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::get(path).header("host", uri.authority().map_or("", |a| a.as_str()));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let code = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(code == 200, "{uri}: {code}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}
