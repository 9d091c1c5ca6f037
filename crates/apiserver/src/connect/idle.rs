//! Connections to kubelets and proxied servers that wait for their next request. A handshake costs more than most requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::backend::Backend;
use crate::http::RequestBody;

/// As Go's and upstream's transports have them.
const IDLE: Duration = Duration::from_secs(90);
const PER_SERVER_MAX: usize = 25;
/// In all.
const CONNECTIONS_MAX: usize = 1000;

/// Who is at the other end, and as whom it was greeted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    host: String,
    port: u16,
    /// The address of the configuration, which its user keeps.
    tls: usize,
    server_name: Option<String>,
}

impl Key {
    pub fn of(backend: &Backend) -> Self {
        let tls = backend.tls.as_ref().map_or(0, |tls| Arc::as_ptr(tls).addr());
        Self { host: backend.host.clone(), port: backend.port, tls, server_name: backend.server_name.clone() }
    }
}

struct Waiting {
    since: Instant,
    sender: SendRequest<RequestBody>,
    /// Kept, so that no other configuration gets its address.
    _tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Default)]
pub struct Idle(Mutex<HashMap<Key, Vec<Waiting>>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last.
    pub fn take(&self, key: &Key) -> Option<SendRequest<RequestBody>> {
        let mut all = self.lock();
        let waiting = all.get_mut(key)?;
        waiting.retain(|w| w.since.elapsed() < IDLE && !w.sender.is_closed());
        let found = waiting.pop().map(|w| w.sender);
        if waiting.is_empty() {
            all.remove(key);
        }
        found
    }

    /// Keeps a connection whose answer was read. What waited too long goes.
    pub fn put(&self, key: Key, sender: SendRequest<RequestBody>, tls: Option<Arc<rustls::ClientConfig>>) {
        let mut all = self.lock();
        all.retain(|_, waiting| {
            waiting.retain(|w| w.since.elapsed() < IDLE && !w.sender.is_closed());
            !waiting.is_empty()
        });
        if all.values().map(Vec::len).sum::<usize>() >= CONNECTIONS_MAX {
            return;
        }
        let waiting = all.entry(key).or_default();
        if waiting.len() < PER_SERVER_MAX {
            waiting.push(Waiting { since: Instant::now(), sender, _tls: tls });
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }
}
