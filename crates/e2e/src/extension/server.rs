//! What runs in the pod: HTTPS on port 8443, certificates from the environment.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{discover, guestbook, handlers};

pub type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// What the program is told to be: this server, or one of the programs of conformance tests.
pub fn main(role: Option<&str>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match role {
        None => run(),
        Some("discover") => runtime.block_on(discover::run()),
        Some(role) => runtime.block_on(guestbook::serve(role)),
    }
}

/// Serves until it is killed.
fn run() -> Result<()> {
    let config = Arc::new(config()?);
    let pod = std::env::var("POD").unwrap_or_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(config, pod))
}

fn config() -> Result<ServerConfig> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(variable("CERT")?.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(variable("KEY")?.as_bytes())?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(variable("PROXY_CA")?.as_bytes()) {
        roots.add(root?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated().build()?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?)
}

async fn serve(config: Arc<ServerConfig>, pod: String) -> Result<()> {
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind("0.0.0.0:8443").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, pod) = (acceptor.clone(), pod.clone());
        tokio::spawn(async move {
            let tls = match acceptor.accept(stream).await {
                Ok(tls) => tls,
                Err(error) => return eprintln!("a handshake failed: {error}"),
            };
            let proxy = tls.get_ref().1.peer_certificates().and_then(|c| common_name(c.first()?)).unwrap_or_default();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (pod, proxy) = (pod.clone(), proxy.clone());
                async move { Ok::<_, std::convert::Infallible>(handlers::answer(request, &pod, &proxy).await) }
            });
            if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned())
}
