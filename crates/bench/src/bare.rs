//! What the machine can do at best, in a process of its own: a bare hyper server with TLS, and a TLS stream without HTTP but
//! for its first lines. Both answer a GET of `/N` with N bytes that lie ready. `reads` compares with them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::kubeconfig::Access;
use crate::server::{Process, Server};

const BYTES_MAX: usize = 64 << 20;
/// A write of the stream, which a record of TLS takes a part of.
const WRITE_BYTES: usize = 64 << 10;

/// Both servers, as long as their process runs.
pub struct Bare {
    pub hyper: Server,
    pub stream: Server,
    _process: Process,
}

impl Bare {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("finding this binary")?);
        let mut child = command.arg("bare").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the bare servers")?;
        let out = child.stdout.take().context("the bare servers have no output")?;
        let (pid, process) = (child.id(), Process(child));
        let mut lines = BufReader::new(out).lines();
        let (mut ports, mut pem) = (Vec::new(), String::new());
        for line in &mut lines {
            let line = line?;
            match line.parse::<u16>() {
                Ok(port) => ports.push(port),
                Err(_) => pem.extend([line.as_str(), "\n"]),
            }
            if ports.len() == 2 {
                break;
            }
        }
        let [hyper, stream] = ports[..] else { anyhow::bail!("the bare servers did not start") };
        let server = |name: &str, port: u16| anyhow::Ok(Server::running(name, access(&pem, port)?, Some(pid)));
        Ok(Self { hyper: server("hyper", hyper)?, stream: server("raw TLS", stream)?, _process: process })
    }
}

fn access(ca: &str, port: u16) -> Result<Access> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    Ok(Access { address: format!("127.0.0.1:{port}"), host: "127.0.0.1".to_owned(), tls, token: None })
}

/// The process: says how to reach it, and serves until it is killed.
pub async fn serve() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let hyper = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpListener::bind("127.0.0.1:0").await?;
    let ports = format!("{}\n{}", hyper.local_addr()?.port(), stream.local_addr()?.port());
    writeln!(std::io::stdout(), "{}{ports}", made.cert.pem())?;
    let mut connections = JoinSet::new();
    loop {
        let (raw, accepted) = tokio::select! { biased;
            accepted = hyper.accept() => (false, accepted?.0),
            accepted = stream.accept() => (true, accepted?.0),
        };
        accepted.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // Clients go when they have what they want.
            let ended = if raw { stream_to(acceptor, accepted).await } else { answer_to(acceptor, accepted).await };
            drop(ended);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer_to(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let tls = acceptor.accept(stream).await?;
    let ready = Bytes::from(vec![b'x'; WRITE_BYTES]);
    let answer = move |request: Request<Incoming>| {
        let bytes = ready.slice(..asked(request.uri().path()).min(WRITE_BYTES));
        async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes))) }
    };
    Ok(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service_fn(answer)).await?)
}

async fn stream_to(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let mut tls = acceptor.accept(stream).await?;
    let ready = vec![b'x'; WRITE_BYTES];
    let mut request = Vec::new();
    while tls.read_buf(&mut request).await? > 0 {
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let mut left = asked(String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default());
        request.clear();
        tls.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n").as_bytes()).await?;
        while left > 0 {
            let part = left.min(WRITE_BYTES);
            tls.write_all(&ready[..part]).await?;
            left -= part;
        }
        tls.flush().await?;
    }
    Ok(())
}

fn asked(path: &str) -> usize {
    path.trim_start_matches('/').parse().unwrap_or(0).min(BYTES_MAX)
}
