//! One HTTP/1.1 connection over TLS.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::kubeconfig::Access;

const READ_BYTES: usize = 64 << 10;

/// What to ask.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Call { method: Method::GET, path: path.into(), content_type: "", body: Bytes::new() }
    }

    pub fn json(method: Method, path: impl Into<String>, body: &serde_json::Value) -> Self {
        Call { method, path: path.into(), content_type: "application/json", body: body.to_string().into() }
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

/// TLS as a client speaks it. Buffered below, because rustls asks for 4 KiB at a time: without, the client's system calls
/// cost more than all that the server does.
pub async fn secured(access: &Access) -> Result<TlsStream<BufReader<TcpStream>>> {
    let stream = TcpStream::connect(&access.address).await.with_context(|| format!("connecting to {}", access.address))?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(access.host.clone())?;
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    TlsConnector::from(access.tls.clone()).connect(name, stream).await.context("TLS")
}

impl Connection {
    pub async fn open(access: &Access) -> Result<Self> {
        let tls = secured(access).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection failed: {error}");
            }
        });
        Ok(Connection { sender, host: access.host.clone(), token: access.token.clone(), _driver: driver })
    }

    pub async fn send(&mut self, call: Call) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(call.method).uri(call.path).header(header::HOST, &self.host);
        if !call.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        // The connection may still be busy with the end of the last answer.
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(call.body))?).await?)
    }

    /// The status, and the body read to its end and counted.
    pub async fn count(&mut self, call: Call) -> Result<(u16, usize)> {
        let response = self.send(call).await?;
        let status = response.status().as_u16();
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((status, bytes))
    }

    /// The body of a good answer; `accepted` are further statuses that are as good.
    pub async fn text(&mut self, call: Call, accepted: &[u16]) -> Result<Bytes> {
        let what = format!("{} {}", call.method, call.path);
        let response = self.send(call).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() && !accepted.contains(&status.as_u16()) {
            bail!("{what} answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)]));
        }
        Ok(body)
    }
}
