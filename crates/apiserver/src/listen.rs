//! Connections: accepting them within bounds, TLS, HTTP/1.1 and HTTP/2 with limits on all a client can make the server keep,
//! and ending them. What is asked over them is `chain`'s.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authn::{Origin, Peer};
use crate::chain;
use crate::http::Body;
use crate::http::body::boxed;
use crate::http::browser::Browsers;
use crate::http::respond::Answer;
use crate::identifiers;
use crate::metrics::table;
use crate::state::Api;

/// How long open connections may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 250;
const HEADER_BYTES_MAX: u32 = 64 * 1024;
const HEADERS_MAX: usize = 256;
/// Streams a client opened and reset while they were still waiting to be looked at.
const RESETS_MAX: usize = 20;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Chances are told apart as finely as this.
const DRAWS: u64 = 1 << 20;
/// An idle connection is looked at so often before it is closed.
const LOOKS: u32 = 3;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    /// One address may have so many, so that others can still come.
    pub per_address: usize,
    /// From the first byte of a request to the end of its headers.
    pub headers: Duration,
    /// A connection without a request is closed after this, as upstream's.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, per_address: 5_000, headers: Duration::from_secs(32), idle: Duration::from_secs(90) }
    }
}

/// Who is connected.
#[derive(Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One connection, counted until dropped.
struct Guest(Arc<Guests>, IpAddr);

impl Guests {
    fn admit(self: &Arc<Self>, from: IpAddr, all: usize, limits: &Limits) -> Option<Guest> {
        let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = guests.entry(from).or_default();
        if all >= limits.connections || *count >= limits.per_address {
            return None;
        }
        *count += 1;
        Some(Guest(self.clone(), from))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = guests.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.1);
            }
        }
    }
}

/// Accepts until `closed`, and serves until `cancel`.
pub async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: Arc<Api>, closed: CancellationToken, cancel: CancellationToken) {
    let mut connections = JoinSet::new();
    let guests = Arc::new(Guests::default());
    loop {
        tokio::select! { biased;
            () = closed.cancelled() => break,
            () = cancel.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "a connection's task failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match guests.admit(from.ip(), connections.len(), &api.config.connections) {
                    Some(guest) => {
                        // A token of its own: each turn of a connection's task looks at it, and with one for all they would
                        // meet at its lock.
                        let served = connection(stream, from, acceptor.clone(), api.clone(), cancel.child_token());
                        connections.spawn(async move {
                            served.await;
                            drop(guest);
                        });
                    }
                    None => tracing::warn!(%from, "too many connections: one was closed"),
                },
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    drop(listener);
    // Connections live on until told to end.
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            ended = connections.join_next() => if ended.is_none() { break },
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, from: SocketAddr, acceptor: TlsAcceptor, api: Arc<Api>, cancel: CancellationToken) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "nodelay");
    }
    let failed = |why: String| {
        api.metrics.count(&table::TLS_HANDSHAKE_ERRORS, &[]);
        tracing::debug!(%from, why, "TLS handshake failed");
    };
    let shaken = tokio::select! { biased;
        () = cancel.cancelled() => return,
        shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => shaken,
    };
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return failed(e.to_string()),
        Err(_) => return failed("it took too long".to_owned()),
    };
    let certificates = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let origin = Origin::Network(Arc::new(Peer::new(certificates, Some(from))));
    serve_io(TokioIo::new(tls), api, origin, cancel).await;
}

/// What goes on on a connection.
#[derive(Default)]
struct Activity {
    requests: AtomicUsize,
    /// All there were.
    begun: AtomicU64,
}

/// What was seen of an [`Activity`], look by look: no request reads a clock for it.
#[derive(Default)]
struct Looked {
    begun: u64,
    still: u32,
}

impl Looked {
    /// How many looks in a row saw nothing.
    fn again(&mut self, activity: &Activity) -> u32 {
        let begun = activity.begun.load(Ordering::Relaxed);
        let busy = activity.requests.load(Ordering::Relaxed) > 0 || std::mem::replace(&mut self.begun, begun) != begun;
        self.still = if busy { 0 } else { self.still + 1 };
        self.still
    }
}

/// One request on a connection, counted until dropped.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(api: Arc<Api>, request: Request<Incoming>, origin: Origin) -> Answer {
    if api.browsers.is_idle() {
        return chain::handle(api, request.map(boxed), origin).await;
    }
    let page = api.browsers.origin(request.headers());
    let mut answer = if Browsers::is_preflight(page.as_ref(), request.method()) {
        let mut empty = Answer::new(Body::empty());
        *empty.status_mut() = http::StatusCode::NO_CONTENT;
        empty
    } else {
        chain::handle(api.clone(), request.map(boxed), origin).await
    };
    api.browsers.tell(page, answer.headers_mut());
    answer
}

/// Both versions of HTTP, with what one client may make the server keep.
fn http(headers_within: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_within)
        // Also how much of an answer waits in memory for a slow reader.
        .max_buf_size(HEADER_BYTES_MAX as usize * 2)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Some(KEEP_ALIVE_EVERY));
    builder
}

/// Serves HTTP/1.1 or HTTP/2 on a connection until it ends.
pub async fn serve_io<I>(io: I, api: Arc<Api>, origin: Origin, cancel: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let limits = api.config.connections;
    let activity = Arc::new(Activity::default());
    let busy = activity.clone();
    let (leave, chance) = (Arc::new(tokio::sync::Notify::new()), api.config.goaway_chance);
    let leaving = leave.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (api, origin) = (api.clone(), origin.clone());
        let busy = Busy::new(&busy);
        if chance > 0.0 && request.version() == Version::HTTP_2 && identifiers::below(DRAWS) < (chance * DRAWS as f64) as u64 {
            leaving.notify_one();
        }
        async move {
            let answer = answer(api, request, origin).await;
            // Until the last byte is sent: a watch is no idle connection.
            Ok::<_, std::convert::Infallible>(answer.map(|body| crate::http::body::Held::new(body, busy)))
        }
    });
    let server = http(limits.headers);
    let connection = server.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let mut draining = false;
    let mut looked = Looked::default();
    let mut look = tokio::time::interval_at(Instant::now() + limits.idle / LOOKS, limits.idle / LOOKS);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { biased;
            () = cancel.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            // What was begun is finished; the client opens another connection, maybe to another server.
            () = leave.notified(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    tracing::debug!(error = %e, "a connection ended");
                }
                return;
            }
            _ = look.tick() => if looked.again(&activity) >= LOOKS {
                if draining {
                    // It was asked to go and did not.
                    return;
                }
                draining = true;
                connection.as_mut().graceful_shutdown();
            },
        }
    }
}
