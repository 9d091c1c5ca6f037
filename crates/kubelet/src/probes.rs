//! Runs probes: exec through CRI, httpGet, tcpSocket and grpc from the node. What outcomes amount to is `podsync`'s.

mod grpc;
pub mod http;
#[cfg(test)]
mod tests;

use std::time::Duration;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, HTTPHeader, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use podsync::probe::ProbeOutcome;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::images::error_text;
use crate::kubelet::Node;

/// The most of a probe's output that is told.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// A port by number or by its name in the container.
pub fn port(p: &IntOrString, c: &Container) -> Result<u16, String> {
    let number = match p {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => {
            let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match (named, name.parse::<i32>()) {
                (Some(p), _) => p.container_port,
                (None, Ok(n)) => n,
                (None, Err(_)) => return Err(format!("couldn't find port: {name} in container: {}", c.name)),
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(OUTPUT_BYTES_MAX)]).into_owned()
}

/// `scheme://host:port/path` and headers of an httpGet action.
pub fn target(action: &k8s_openapi::api::core::v1::HTTPGetAction, c: &Container, pod_ip: &str) -> Result<http::Target, String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    Ok(http::Target {
        tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
        host: host.to_owned(),
        port: port(&action.port, c)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: action.http_headers.iter().flatten().map(|HTTPHeader { name, value }| (name.clone(), value.clone())).collect(),
    })
}

/// Runs one probe of a container instance.
pub async fn run(node: &Node, pod_ip: &str, c: &Container, id: &str, probe: &Probe, seconds: u32) -> ProbeOutcome {
    let limit = Duration::from_secs(u64::from(seconds));
    if let Some(exec) = &probe.exec {
        return run_exec(node, id, exec.command.clone().unwrap_or_default(), i64::from(seconds)).await;
    }
    if let Some(action) = &probe.http_get {
        let target = match target(action, c, pod_ip) {
            Ok(t) => t,
            Err(e) => return ProbeOutcome::Error(e),
        };
        return http_outcome(&target, limit).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        return match port(&action.port, c) {
            Ok(p) => tcp(host, p, limit).await,
            Err(e) => ProbeOutcome::Error(e),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        return match u16::try_from(action.port) {
            Ok(p) => grpc::check(pod_ip, p, &service, limit).await,
            Err(_) => ProbeOutcome::Error(format!("invalid port number: {}", action.port)),
        };
    }
    ProbeOutcome::Error("missing probe handler".to_owned())
}

async fn run_exec(node: &Node, id: &str, cmd: Vec<String>, seconds: i64) -> ProbeOutcome {
    let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
    match node.cri.runtime.clone().exec_sync(request).await {
        Ok(answer) => {
            let a = answer.into_inner();
            let output = cut(&[a.stdout, a.stderr].concat());
            if a.exit_code == 0 { ProbeOutcome::Success } else { ProbeOutcome::Failure(output) }
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
            ProbeOutcome::Failure(format!("command timed out: {}", error_text(&status)))
        }
        Err(status) => ProbeOutcome::Error(error_text(&status)),
    }
}

async fn http_outcome(first: &http::Target, limit: Duration) -> ProbeOutcome {
    let started = std::time::Instant::now();
    let mut target = first.clone();
    for _ in 0..10 {
        let left = limit.saturating_sub(started.elapsed());
        let answer = match timeout(left, http::get(&target)).await {
            Err(_) => {
                return ProbeOutcome::Failure(format!(
                    "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    target.url()
                ));
            }
            Ok(Err(e)) => return ProbeOutcome::Failure(format!("Get \"{}\": {e}", target.url())),
            Ok(Ok(answer)) => answer,
        };
        match (answer.status, answer.location.as_deref()) {
            (300..=399, Some(to)) => match target.redirected(to) {
                Some(next) if next.host == first.host => target = next,
                _ => return ProbeOutcome::Warning(format!("Probe terminated redirects, Response body: {}", cut(&answer.body))),
            },
            (200..=399, _) => return ProbeOutcome::Success,
            (code, _) => return ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
        }
    }
    ProbeOutcome::Failure(format!("Get \"{}\": stopped after 10 redirects", first.url()))
}

async fn tcp(host: &str, port: u16, limit: Duration) -> ProbeOutcome {
    let shown = http::join(host, port);
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => ProbeOutcome::Success,
        Ok(Err(e)) => ProbeOutcome::Failure(format!("dial tcp {shown}: {}", http::go_error(&e))),
        Err(_) => ProbeOutcome::Failure(format!("dial tcp {shown}: i/o timeout")),
    }
}
