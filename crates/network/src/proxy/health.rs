//! What the proxy answers over HTTP: its own health at `/healthz` and `/livez`, and per Service with
//! `healthCheckNodePort` whether this node has endpoints. Only a status line and a small JSON body, so no HTTP library.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netplan::proxy::HealthCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::{Error, NetNs, Result};

/// A change that waits longer than this makes the proxy unhealthy. Upstream: twice the sync period of 30 s.
const STUCK: Duration = Duration::from_secs(60);
const REQUEST_BYTES_MAX: usize = 4096;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct State {
    queued: Option<Instant>,
    updated: SystemTime,
}

#[derive(Clone, Debug)]
enum Subject {
    Proxy(Arc<Mutex<State>>),
    Service(Arc<Mutex<HealthCheck>>, Arc<Mutex<State>>),
}

#[derive(Debug)]
pub(super) struct Health {
    netns: NetNs,
    state: Arc<Mutex<State>>,
    servers: Mutex<JoinSet<()>>,
    services: BTreeMap<u16, (Arc<Mutex<HealthCheck>>, JoinSet<()>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    pub(super) fn new(netns: &NetNs) -> Self {
        let state = State { queued: None, updated: SystemTime::now() };
        Health { netns: netns.clone(), state: Arc::new(Mutex::new(state)), servers: Mutex::default(), services: BTreeMap::new() }
    }

    /// A change waits to be made.
    pub(super) fn queued(&self) {
        lock(&self.state).queued.get_or_insert_with(Instant::now);
    }

    /// Everything known has been made.
    pub(super) fn updated(&self) {
        let mut state = lock(&self.state);
        state.queued = None;
        state.updated = SystemTime::now();
    }

    pub(super) fn serve_healthz(&self, at: SocketAddr) -> Result<()> {
        let listener = listen(&self.netns, at)?;
        lock(&self.servers).spawn(serve(listener, Subject::Proxy(self.state.clone())));
        Ok(())
    }

    /// Serve exactly these. A port that cannot be had is logged and tried again with the next change.
    pub(super) fn set_services(&mut self, wanted: &BTreeMap<u16, HealthCheck>) {
        self.services.retain(|port, _| wanted.contains_key(port));
        for (port, check) in wanted {
            if let Some((served, _)) = self.services.get(port) {
                *lock(served) = check.clone();
                continue;
            }
            match listen(&self.netns, SocketAddr::from(([0; 4], *port))) {
                Ok(listener) => {
                    let served = Arc::new(Mutex::new(check.clone()));
                    let mut task = JoinSet::new();
                    task.spawn(serve(listener, Subject::Service(served.clone(), self.state.clone())));
                    self.services.insert(*port, (served, task));
                }
                Err(e) => tracing::error!(port, service = check.name, error = %e, "cannot serve the health check node port"),
            }
        }
    }
}

fn listen(netns: &NetNs, at: SocketAddr) -> Result<TcpListener> {
    let bound = netns.run(|| {
        let listener = std::net::TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(listener)
    })?;
    let doing = |e| Error::netlink(format!("listen on {at}"), e);
    TcpListener::from_std(bound.map_err(doing)?).map_err(doing)
}

async fn serve(listener: TcpListener, subject: Subject) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if connections.len() < 64 => {
                let subject = subject.clone();
                connections.spawn(async move {
                    if let Ok(Err(e)) = tokio::time::timeout(REQUEST_TIME_MAX, answer(stream, &subject)).await {
                        tracing::debug!(error = %e, "health check ended early");
                    }
                });
            }
            // More than anyone who checks health needs.
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a health check");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, subject: &Subject) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or("/").to_owned();
    let (status, headers, body) = subject.respond(&path);
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n{headers}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn is_healthy(state: &Mutex<State>) -> bool {
    lock(state).queued.is_none_or(|since| since.elapsed() < STUCK)
}

impl Subject {
    fn respond(&self, path: &str) -> (&'static str, String, String) {
        const OK: &str = "200 OK";
        const UNAVAILABLE: &str = "503 Service Unavailable";
        match self {
            Subject::Proxy(state) => {
                if !matches!(path, "/healthz" | "/livez") {
                    return ("404 Not Found", String::new(), "404 page not found\n".into());
                }
                let healthy = is_healthy(state);
                let now = timestamp(SystemTime::now());
                let updated = if healthy { now.clone() } else { timestamp(lock(state).updated) };
                let body = serde_json::json!({"lastUpdated": updated, "currentTime": now, "nodeEligible": true});
                (if healthy { OK } else { UNAVAILABLE }, String::new(), body.to_string())
            }
            Subject::Service(check, state) => {
                let check = lock(check).clone();
                let healthy = is_healthy(state);
                let up = check.local_endpoints > 0 && healthy;
                let body = serde_json::json!({
                    "service": {"namespace": check.namespace, "name": check.name},
                    "localEndpoints": check.local_endpoints,
                    "serviceProxyHealthy": healthy,
                });
                let headers = format!("X-Load-Balancing-Endpoint-Weight: {}\r\n", check.local_endpoints);
                (if up { OK } else { UNAVAILABLE }, headers, body.to_string())
            }
        }
    }
}

/// As Go prints a time in UTC.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a civil date, counting years from March so that the leap day is the last (era of 400 years).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:09} +0000 UTC", since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_civil_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00.000000000 +0000 UTC"),
            (951_782_400, "2000-02-29 00:00:00.000000000 +0000 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59.000000000 +0000 UTC"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_stuck_change_makes_the_proxy_unhealthy() {
        let long_ago = Instant::now().checked_sub(STUCK * 2);
        let state = Arc::new(Mutex::new(State { queued: None, updated: SystemTime::now() }));
        let check = HealthCheck { namespace: "default".into(), name: "web".into(), local_endpoints: 2 };
        let check = Arc::new(Mutex::new(check));
        let (proxy, service) = (Subject::Proxy(state.clone()), Subject::Service(check.clone(), state.clone()));
        assert!(proxy.respond("/healthz").0.starts_with("200"));
        assert!(proxy.respond("/other").0.starts_with("404"));
        assert!(service.respond("/").0.starts_with("200"));
        lock(&state).queued = long_ago;
        assert!(proxy.respond("/healthz").0.starts_with("503"));
        assert!(service.respond("/").0.starts_with("503"));
        lock(&state).queued = None;
        lock(&check).local_endpoints = 0;
        assert!(service.respond("/").0.starts_with("503"));
    }
}
