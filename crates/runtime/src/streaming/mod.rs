//! Exec, attach and port-forward: an HTTP server on loopback behind single-use URLs, speaking Kubernetes' WebSocket
//! subprotocols, and SPDY for port-forward. The API server reaches it through the kubelet.

mod command;
mod descriptor;
mod forward;
pub mod pump;
mod session;
pub mod spdy;
pub mod websocket;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use session::Session;

use crate::ids;
use crate::server::Server;

/// An unused URL is good for this long, as upstream's.
const TICKET_AGE_MAX: Duration = Duration::from_secs(60);
const SPDY: &str = "SPDY/3.1";
const PROTOCOLS: &str = "x-stream-protocol-version";
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
const FORWARD: &str = "portforward.k8s.io";
const TICKETS_MAX: usize = 1000;

/// What a URL stands for.
#[derive(Clone, Debug)]
pub enum Ticket {
    Exec { container: String, command: Vec<String>, tty: bool, stdin: bool, stdout: bool, stderr: bool },
    Attach { container: String, tty: bool, stdin: bool, stdout: bool, stderr: bool },
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// The listener and the tickets it honours.
pub struct Streams {
    listener: Mutex<Option<TcpListener>>,
    address: SocketAddr,
    tickets: Mutex<HashMap<String, (Ticket, Instant)>>,
}

impl Streams {
    pub async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { listener: Mutex::new(Some(listener)), address, tickets: Mutex::default() })
    }

    /// A URL that stands for `ticket`, once.
    pub fn ticket(&self, kind: &str, ticket: Ticket) -> String {
        let token = ids::random();
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (_, made)| made.elapsed() < TICKET_AGE_MAX);
        if tickets.len() >= TICKETS_MAX {
            tickets.clear();
        }
        tickets.insert(token.clone(), (ticket, Instant::now()));
        format!("http://{}/{kind}/{token}", self.address)
    }

    fn redeem(&self, path: &str) -> Option<Ticket> {
        let token = path.rsplit('/').next()?;
        let (ticket, made) = self.tickets.lock().unwrap_or_else(PoisonError::into_inner).remove(token)?;
        (made.elapsed() < TICKET_AGE_MAX).then_some(ticket)
    }
}

/// Serves until the server is cancelled.
pub(crate) async fn serve(server: Arc<Server>) {
    let Some(listener) = server.streams.listener.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => drop(server.tasks.spawn(connection(Arc::clone(&server), socket))),
            Err(error) => {
                tracing::warn!(%error, "accept a stream");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, socket: TcpStream) {
    let handler = hyper::service::service_fn(|request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(answer(&server, request)) }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), handler).with_upgrades();
    let outcome = tokio::select! {
        biased;
        () = server.cancel.cancelled() => return,
        outcome = serving => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a stream's connection");
    }
}

fn refuse(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

/// What a client of SPDY may ask for.
fn spoken(ticket: &Ticket) -> &'static [&'static str] {
    if matches!(ticket, Ticket::PortForward { .. }) { &[FORWARD] } else { &command::PROTOCOLS }
}

/// Streams of older clients.
fn answer_spdy(server: &Arc<Server>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(ticket) = server.streams.redeem(request.uri().path()) else { return refuse(StatusCode::NOT_FOUND, "unknown or used token") };
    let offered: Vec<&str> = request.headers().get_all(PROTOCOLS).iter().filter_map(|v| v.to_str().ok()).collect();
    let offered = offered.join(",");
    let chosen = match &ticket {
        Ticket::PortForward { .. } => offered.split(',').any(|name| name.trim() == FORWARD).then_some(FORWARD),
        _ => command::choose(&offered),
    };
    let Some(protocol) = chosen else {
        let known = spoken(&ticket);
        let why = format!("unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts {known:?}");
        let mut response = refuse(StatusCode::FORBIDDEN, &why);
        for name in known {
            response.headers_mut().append(ACCEPTED, header::HeaderValue::from_static(name));
        }
        return response;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let task = Arc::clone(server);
    server.tasks.spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "upgrade a stream"),
        };
        let served = async {
            match &ticket {
                Ticket::PortForward { sandbox, .. } => forward::serve(&task, sandbox, upgraded).await,
                _ => command::serve(&task, upgraded, ticket, protocol).await,
            }
        };
        tokio::select! {
            biased;
            () = task.cancel.cancelled() => {}
            () = served => {}
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOLS, header::HeaderValue::from_static(protocol));
    response
}

fn answer(server: &Arc<Server>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let value = |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    if value(header::UPGRADE).eq_ignore_ascii_case(SPDY) {
        return answer_spdy(server, request);
    }
    if !value(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 WebSocket subprotocol: only WebSocket upgrades are served");
    }
    let key = value(header::SEC_WEBSOCKET_KEY);
    let offered = value(header::SEC_WEBSOCKET_PROTOCOL);
    let Some(ticket) = server.streams.redeem(request.uri().path()) else { return refuse(StatusCode::NOT_FOUND, "unknown or used token") };
    let Some(protocol) = websocket::choose(&offered, &ticket) else {
        return refuse(StatusCode::BAD_REQUEST, "no supported subprotocol was offered");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let task = Arc::clone(server);
    server.tasks.spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "upgrade a stream"),
        };
        tokio::select! {
            biased;
            () = task.cancel.cancelled() => {}
            () = websocket::run(&task, upgraded, ticket, protocol) => {}
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol.name()),
    ] {
        let unnamed = name == header::SEC_WEBSOCKET_PROTOCOL && offered.is_empty();
        if let (false, Ok(value)) = (unnamed, value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
