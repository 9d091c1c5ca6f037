//! The members of the cluster, and which one is asked. One is used until it fails; then the next is. A request is tried on
//! other members until its deadline, as long as it is certain that nothing was done or that doing it twice does no harm.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use store::{Error, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::errors::{Failure, innermost};
use crate::etcdserverpb::StatusRequest;
use crate::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::options::Options;
use crate::tls;

/// Between attempts: short as long as there are members not yet tried.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_AFTER_ALL: Duration = Duration::from_millis(250);
/// etcd ends connections that ping more often than every five seconds.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a member tells on request of how far a watch is can be relied on from these versions on (upstream's rule).
const PROGRESS_SINCE: [(u64, u64, u64); 2] = [(3, 4, 31), (3, 5, 13)];

pub struct Endpoints {
    members: Vec<Member>,
    current: AtomicUsize,
    connect: Duration,
    deadline: Duration,
    attempt: Duration,
    tls: Option<Arc<ClientConfig>>,
    ask_progress: Option<bool>,
    /// A member was seen that cannot tell how far a watch is.
    old: AtomicBool,
}

struct Member {
    host: String,
    port: u16,
    secure: bool,
    live: tokio::sync::Mutex<Option<Connection>>,
}

#[derive(Clone)]
pub struct Connection {
    pub channel: Channel,
    /// Cancelled when somebody found the connection dead.
    pub broken: CancellationToken,
    /// Whether the member can be asked how far a watch is.
    pub progress: bool,
    at: usize,
}

/// Whether doing a request twice matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

impl Endpoints {
    pub fn new(options: &Options) -> Result<Self> {
        let members = options.servers.iter().map(|url| member(url)).collect::<Result<Vec<_>>>()?;
        if members.is_empty() {
            return Err(Error::Open("--etcd-servers: at least one is needed".into()));
        }
        let secure = members.iter().any(|m| m.secure);
        Ok(Self {
            // Each server begins elsewhere, so that the load is spread.
            current: AtomicUsize::new(random(members.len())),
            members,
            connect: options.connect,
            deadline: options.deadline,
            attempt: options.attempt,
            ask_progress: options.ask_progress,
            tls: if secure { Some(tls::client_config(options)?) } else { None },
            old: AtomicBool::new(false),
        })
    }

    /// Whether all members that were reached can be asked how far a watch is.
    pub fn tell_progress(&self) -> bool {
        !self.old.load(Ordering::Relaxed)
    }

    /// Tries every member once, to learn their versions. An error where none could be reached.
    pub async fn look(&self) -> Result<()> {
        let looks = (0..self.members.len()).map(|at| self.connection_to(at));
        let found = futures::future::join_all(looks).await;
        let mut why = String::new();
        for (at, found) in found.into_iter().enumerate() {
            match found {
                Ok(_) => why.clear(),
                Err(e) => why = format!("{}:{}: {e}", self.members[at].host, self.members[at].port),
            }
            if why.is_empty() {
                return Ok(());
            }
        }
        Err(Error::Unavailable(format!("no etcd server can be reached: {why}")))
    }

    /// A connection to the member in use; to another one if that cannot be reached.
    pub async fn connection(&self) -> Result<Connection, String> {
        let at = self.current.load(Ordering::Relaxed);
        let found = self.connection_to(at).await;
        if found.is_err() {
            self.leave(at);
        }
        found
    }

    async fn connection_to(&self, at: usize) -> Result<Connection, String> {
        let member = &self.members[at];
        let mut live = member.live.lock().await;
        if let Some(connection) = live.as_ref().filter(|c| !c.broken.is_cancelled()) {
            return Ok(connection.clone());
        }
        *live = None;
        let connecting = tokio::time::timeout(self.connect, self.dial(at));
        let connection = connecting.await.map_err(|_| "context deadline exceeded".to_owned())??;
        if !connection.progress {
            self.old.store(true, Ordering::Relaxed);
        }
        *live = Some(connection.clone());
        Ok(connection)
    }

    async fn dial(&self, at: usize) -> Result<Connection, String> {
        let Member { host, port, secure, .. } = &self.members[at];
        let (host, port, tls) = (host.clone(), *port, self.tls.clone().filter(|_| *secure));
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let connector = tower::service_fn(move |_: Uri| {
            let (host, tls) = (host.clone(), tls.clone());
            async move { tls::connect(&host, port, tls).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|e| e.to_string())?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let channel = endpoint.connect_with_connector(connector).await.map_err(|e| innermost(&e))?;
        let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await;
        let version = status.map(|s| s.into_inner().version).map_err(|e| innermost(&e))?;
        let progress = self.ask_progress.unwrap_or_else(|| tells_progress(&version));
        tracing::info!(endpoint = authority, version, "connected to etcd");
        Ok(Connection { channel, broken: CancellationToken::new(), progress, at })
    }

    /// The member in use failed: the next one is used from now on.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        // Where somebody else was faster, the next one is in use already.
        self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// The connection does not work; all that use it go elsewhere.
    pub fn give_up(&self, connection: &Connection) {
        connection.broken.cancel();
        self.leave(connection.at);
    }

    /// The member has no leader.
    pub fn avoid(&self, connection: &Connection) {
        self.leave(connection.at);
    }

    /// Makes a request, with further attempts until the deadline.
    pub async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(&self, kind: Kind, request: impl Fn(Channel) -> F) -> Result<T> {
        let until = Instant::now() + self.deadline;
        let mut said = None;
        for tried in 1_usize.. {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let done = if kind == Kind::Read { self.read(left, &request).await } else { self.once(left, &request).await };
            let failure = match done {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match failure {
                Failure::Final(error) => return Err(error),
                Failure::Unsure(text) if kind == Kind::Write => return Err(Error::Cluster(text)),
                Failure::Lost(text) if kind == Kind::Write => return Err(Error::Unavailable(text)),
                Failure::Refused(text) | Failure::Unsure(text) | Failure::Lost(text) => {
                    // etcd's own words say more than those of a connection.
                    said = said.filter(|s: &String| s.starts_with("etcdserver:")).or(Some(text));
                }
            }
            let pause = if tried.is_multiple_of(self.members.len()) { PAUSE_AFTER_ALL } else { PAUSE };
            tokio::time::sleep(pause.min(left)).await;
        }
        match said {
            Some(text) if text.starts_with("etcdserver:") => Err(Error::Cluster(text)),
            said => Err(Error::Timeout(said.unwrap_or_default())),
        }
    }

    /// At the member in use.
    async fn once<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        left: Duration,
        request: &impl Fn(Channel) -> F,
    ) -> Result<T, Failure> {
        let connection = self.connection().await.map_err(Failure::Refused)?;
        self.attempt(&connection, left, request).await
    }

    /// At the member in use, and while that says nothing at others too: the first answer counts. A member of etcd 3.4 that asked
    /// a new leader too early answers no read for seven seconds, though its connection is well.
    async fn read<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        left: Duration,
        request: &impl Fn(Channel) -> F,
    ) -> Result<T, Failure> {
        let mut under_way = FuturesUnordered::new();
        let mut asked = 0;
        loop {
            let at = self.current.load(Ordering::Relaxed);
            if asked < self.members.len() {
                asked += 1;
                under_way.push(self.once(left, request));
            }
            tokio::select! { biased;
                Some(answer) = under_way.next() => match answer {
                    // Others may still answer.
                    Err(Failure::Refused(_) | Failure::Unsure(_) | Failure::Lost(_)) if !under_way.is_empty() => {}
                    answer => return answer,
                },
                () = tokio::time::sleep(self.attempt), if asked < self.members.len() => self.leave(at),
            }
        }
    }

    async fn attempt<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        connection: &Connection,
        limit: Duration,
        request: &impl Fn(Channel) -> F,
    ) -> Result<T, Failure> {
        let answer = tokio::select! { biased;
            answer = tokio::time::timeout(limit, request(connection.channel.clone())) => answer,
            () = connection.broken.cancelled() => return Err(Failure::Lost("the connection was lost".into())),
        };
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => Failure::of(&status),
            Err(_) => Failure::Lost("context deadline exceeded".into()),
        };
        match &failure {
            Failure::Lost(_) => self.give_up(connection),
            Failure::Refused(_) | Failure::Unsure(_) => self.avoid(connection),
            Failure::Final(_) => {}
        }
        Err(failure)
    }
}

/// Has etcd refuse at once where the member asked has no leader, instead of waiting for one.
pub fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

fn member(url: &str) -> Result<Member> {
    let bad = || Error::Open(format!("--etcd-servers {url}: must be as https://10.0.0.1:2379"));
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad()),
    };
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    Ok(Member { host, port, secure, live: tokio::sync::Mutex::default() })
}

fn tells_progress(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|p| p.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    let [old, new] = PROGRESS_SINCE;
    if version < (3, 5, 0) { version >= old } else { version >= new }
}

fn random(below: usize) -> usize {
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    usize::try_from(number % below as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_tell_progress() {
        let good = ["3.4.31", "3.4.40", "3.5.13", "3.5.21", "3.6.0", "4.0.0", "3.6.0-rc.1"];
        let bad = ["3.4.23", "3.4.30", "3.5.0", "3.5.12", "3.3.99", "", "x"];
        assert!(good.iter().all(|v| tells_progress(v)));
        assert!(!bad.iter().any(|v| tells_progress(v)));
    }

    #[test]
    fn addresses() {
        let of = |url| member(url).map(|m| (m.host, m.port, m.secure)).ok();
        assert_eq!(of("https://a.example:2379"), Some(("a.example".into(), 2379, true)));
        assert_eq!(of("http://[fd00::1]:12379/"), Some(("fd00::1".into(), 12379, false)));
        assert_eq!(of("http://10.0.0.1"), Some(("10.0.0.1".into(), 2379, false)));
        assert_eq!(of("10.0.0.1:2379"), None);
        assert_eq!(of("unix:///run/etcd"), None);
    }
}
