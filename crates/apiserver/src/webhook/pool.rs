//! Connections to webhooks, kept for a while and used again. HTTP/1.1, as upstream speaks to them, so that calls spread over
//! a Service's endpoints.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use super::endpoint::{Endpoint, Place};
use super::reply::Answer;
use super::{service, trust};
use crate::connect::{self, BackendError};
use crate::state::Api;

/// An answer larger than this is none: patches and converted lists are smaller.
const ANSWER_BYTES_MAX: usize = 32 << 20;
const IDLE: Duration = Duration::from_secs(30);
const IDLE_PER_ENDPOINT_MAX: usize = 16;
/// Endpoints remembered; the one longest unused goes first.
const ENDPOINTS_MAX: usize = 256;

/// All connections to webhooks.
#[derive(Default)]
pub struct Pool {
    endpoints: Mutex<HashMap<Endpoint, Known>>,
}

struct Known {
    tls: Arc<ClientConfig>,
    idle: Vec<(Instant, SendRequest<Full<Bytes>>)>,
    used: Instant,
}

pub enum SendError {
    Config(String),
    Io(String),
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Known>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts a body, or gets without one; answers what came back, whatever it is.
    pub async fn send(&self, api: &Arc<Api>, to: &Endpoint, query: &str, body: Option<Bytes>) -> Result<Answer, SendError> {
        let tls = self.tls(to)?;
        let mut request = request(to, query, body).map_err(SendError::Config)?;
        while let Some(mut sender) = self.take(to) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(answer) => return self.finish(to, sender, answer).await,
                Err(mut unsent) => match unsent.take_message() {
                    // It was closed before anything was written.
                    Some(message) => request = message,
                    None => return Err(SendError::Io(http_text(unsent.error()))),
                },
            }
        }
        let mut sender = dial(api, to, tls).await?;
        let answer = sender.send_request(request).await.map_err(|e| SendError::Io(http_text(&e)))?;
        self.finish(to, sender, answer).await
    }

    async fn finish(
        &self,
        to: &Endpoint,
        sender: SendRequest<Full<Bytes>>,
        answer: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, SendError> {
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|e| SendError::Io(format!("unexpected error when reading response body: {e}")))?.to_bytes();
        self.put_back(to, sender);
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        Ok(Answer { code: parts.status.as_u16(), content_type, body })
    }

    /// The TLS side of an endpoint, made when it is first called.
    fn tls(&self, to: &Endpoint) -> Result<Arc<ClientConfig>, SendError> {
        let now = Instant::now();
        if let Some(known) = self.lock().get_mut(to) {
            known.used = now;
            return Ok(known.tls.clone());
        }
        let tls = Arc::new(trust::client_config(&to.trust, to.identity.as_ref()).map_err(SendError::Config)?);
        let mut all = self.lock();
        if all.len() >= ENDPOINTS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, known)| known.used).map(|(endpoint, _)| endpoint.clone())
        {
            all.remove(&oldest);
        }
        all.insert(to.clone(), Known { tls: tls.clone(), idle: Vec::new(), used: now });
        Ok(tls)
    }

    fn take(&self, to: &Endpoint) -> Option<SendRequest<Full<Bytes>>> {
        let mut all = self.lock();
        let idle = &mut all.get_mut(to)?.idle;
        idle.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
        idle.pop().map(|(_, sender)| sender)
    }

    fn put_back(&self, to: &Endpoint, sender: SendRequest<Full<Bytes>>) {
        if let Some(known) = self.lock().get_mut(to)
            && known.idle.len() < IDLE_PER_ENDPOINT_MAX
        {
            known.idle.push((Instant::now(), sender));
        }
    }
}

fn request(to: &Endpoint, query: &str, body: Option<Bytes>) -> Result<Request<Full<Bytes>>, String> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
    let method = if body.is_some() { http::Method::POST } else { http::Method::GET };
    let request = Request::builder().method(method).uri(to.path(query)).body(Full::new(body.unwrap_or_default()));
    let mut request = request.map_err(|e| e.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, value(&to.authority())?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
    let login = |(name, password): &(String, String)| format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
    if let Some(text) = to.token.as_ref().map(|token| format!("Bearer {token}")).or_else(|| to.login.as_ref().map(login)) {
        let mut secret = value(&text)?;
        secret.set_sensitive(true);
        headers.insert(AUTHORIZATION, secret);
    }
    Ok(request)
}

async fn dial(api: &Arc<Api>, to: &Endpoint, tls: Arc<ClientConfig>) -> Result<SendRequest<Full<Bytes>>, SendError> {
    let io = |e: BackendError| SendError::Io(e.to_string());
    let (host, port) = match &to.place {
        Place::Url { host, port, .. } => (host.clone(), *port),
        Place::Service { namespace, name, port, .. } => {
            let found = service::resolve(api, namespace, name, *port, api.connections.turn()).await;
            found.map(|a| (a.host, a.port)).map_err(|e| SendError::Io(e.message))?
        }
    };
    let host = connect::called(api, &host, port).await.map_err(SendError::Io)?.to_string();
    let backend = connect::Backend { host, port, tls: Some(tls), server_name: Some(to.verified_name()) };
    let stream = backend.dial().await.map_err(io)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| io(e.into()))?;
    api.connections.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook");
        }
    });
    Ok(sender)
}

fn http_text(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return "EOF".to_owned();
    }
    match std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>()) {
        Some(io) if io.kind() == std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        // The server refused our certificate after the handshake, as TLS 1.3 does.
        Some(io) => super::texts::handshake(io),
        None if error.is_parse() => format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}"),
        None => error.to_string(),
    }
}
