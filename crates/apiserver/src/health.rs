//! `/healthz`, `/livez`, `/readyz`: upstream's checks by name, verbose if asked or if one fails, and what `/metrics/slis`
//! tells of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::metrics::table;
use crate::state::Api;

/// How a check is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    /// It runs, so it answers.
    Answering,
    Store,
    /// The key management services that encrypt what is stored: all, or one by its place.
    Kms(Option<usize>),
    /// What starts with the server has started.
    Started,
    /// The same, which `/livez` believes for its grace period.
    Hook,
    Stopping,
}

use Judge::{Answering, Hook, Kms, Started, Stopping, Store};

/// Everywhere, but for [`only`].
const CHECKS: [(&str, Judge); 39] = [
    ("ping", Answering),
    ("log", Answering),
    ("loopback-serving-certificate", Answering),
    ("etcd", Store),
    ("etcd-readiness", Store),
    ("informer-sync", Started),
    ("poststarthook/start-apiserver-admission-initializer", Hook),
    ("poststarthook/generic-apiserver-start-informers", Hook),
    ("poststarthook/priority-and-fairness-config-consumer", Hook),
    ("poststarthook/priority-and-fairness-filter", Hook),
    ("poststarthook/storage-object-count-tracker-hook", Hook),
    ("poststarthook/start-apiextensions-informers", Hook),
    ("poststarthook/start-apiextensions-controllers", Hook),
    ("poststarthook/crd-informer-synced", Hook),
    ("poststarthook/start-system-namespaces-controller", Hook),
    ("poststarthook/start-cluster-authentication-info-controller", Hook),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", Hook),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", Hook),
    ("poststarthook/storage-readiness", Hook),
    ("poststarthook/start-legacy-token-tracking-controller", Hook),
    ("poststarthook/start-service-ip-repair-controllers", Hook),
    ("poststarthook/rbac/bootstrap-roles", Hook),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Hook),
    ("poststarthook/priority-and-fairness-config-producer", Hook),
    ("poststarthook/bootstrap-controller", Hook),
    ("poststarthook/start-kubernetes-service-cidr-controller", Hook),
    ("poststarthook/peer-endpoint-reconciler-controller", Hook),
    ("poststarthook/aggregator-reload-proxy-client-cert", Hook),
    ("poststarthook/start-kube-aggregator-informers", Hook),
    ("poststarthook/apiservice-status-local-available-controller", Hook),
    ("poststarthook/apiservice-status-remote-available-controller", Hook),
    ("poststarthook/apiservice-registration-controller", Hook),
    ("poststarthook/apiservice-wait-for-first-sync", Hook),
    ("poststarthook/apiservice-discovery-controller", Hook),
    ("poststarthook/kube-apiserver-autoregistration", Hook),
    ("autoregister-completion", Hook),
    ("poststarthook/apiservice-openapi-controller", Hook),
    ("poststarthook/apiservice-openapiv3-controller", Hook),
    ("shutdown", Stopping),
];

/// Whether a path has a check.
fn has(path: &str, check: &str) -> bool {
    let readyz = path == "/readyz";
    match check {
        "etcd-readiness" | "informer-sync" | "shutdown" => readyz,
        "loopback-serving-certificate" => !readyz,
        _ => true,
    }
}

/// As upstream: one check for all where the configuration may change, or else one for each.
const KMS_CHECKS: [&str; 8] = [
    "kms-provider-0",
    "kms-provider-1",
    "kms-provider-2",
    "kms-provider-3",
    "kms-provider-4",
    "kms-provider-5",
    "kms-provider-6",
    "kms-provider-7",
];

fn checks(api: &Api, path: &str) -> Vec<(&'static str, Judge)> {
    let mut all: Vec<(&'static str, Judge)> = CHECKS.into_iter().filter(|(name, _)| has(path, name)).collect();
    let Some(encryption) = &api.encryption else { return all };
    let after = all.iter().position(|(name, _)| name.starts_with("poststarthook/") || *name == "informer-sync").unwrap_or(all.len());
    let kms: Vec<(&str, Judge)> = match api.config.encryption_reload {
        Some(_) => vec![("kms-providers", Kms(None))],
        None => KMS_CHECKS.into_iter().zip(0..encryption.kms().len()).map(|(name, at)| (name, Kms(Some(at)))).collect(),
    };
    all.splice(after..after, kms);
    all
}

pub fn paths(api: &Api) -> Vec<String> {
    let mut out = Vec::new();
    for path in ["/healthz", "/livez", "/readyz"] {
        out.push(path.to_owned());
        out.extend(checks(api, path).into_iter().map(|(name, _)| format!("{path}/{name}")));
    }
    out
}

/// `Ok`, or why not.
async fn judge(api: &Arc<Api>, path: &str, judge: Judge) -> Result<(), String> {
    let started = || if api.ready.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) };
    match judge {
        Answering => Ok(()),
        Store => stored(api).await,
        Kms(place) => match &api.encryption {
            Some(encryption) => encryption.healthy(place).await.map_err(|e| e.to_string()),
            None => Ok(()),
        },
        Hook if path == "/livez" && api.started.elapsed() < api.config.livez_grace_period => Ok(()),
        Started | Hook => started(),
        Stopping if api.stopping.load(Ordering::Acquire) => Err("process is shutting down".to_owned()),
        Stopping => Ok(()),
    }
}

/// Whether the store answers soon: upstream's times and words.
async fn stored(api: &Api) -> Result<(), String> {
    let answered = tokio::time::timeout(api.config.store_check_timeout, api.store.revision()).await;
    match answered {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("error getting data from etcd: {error}")),
        Err(_) => Err("error getting data from etcd: context deadline exceeded".to_owned()),
    }
}

/// Runs one check and counts how it went.
async fn run(api: &Arc<Api>, path: &str, (name, how): (&'static str, Judge)) -> Result<(), String> {
    let outcome = judge(api, path, how).await;
    let kind = path.trim_start_matches('/');
    let status = if outcome.is_ok() { "success" } else { "error" };
    api.metrics.set(&table::HEALTHCHECK, &[name, kind], f64::from(u8::from(outcome.is_ok())));
    api.metrics.count(&table::HEALTHCHECKS, &[name, status, kind]);
    outcome
}

/// The answer for a path, or for one check below it.
pub async fn serve(call: &Call, path: &str, one: Option<&str>) -> Answer {
    let api = &call.api;
    if let Some(one) = one {
        let Some(check) = checks(api, path).into_iter().find(|(name, _)| *name == one) else { return respond::page_not_found() };
        return match run(api, path, check).await {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        };
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let (mut lines, mut failed, mut found) = (String::new(), Vec::new(), Vec::new());
    for check in checks(api, path) {
        let name = check.0;
        if excluded.contains(&name) {
            found.push(name);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match run(api, path, check).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    let unknown: Vec<String> = excluded.iter().filter(|e| !found.contains(e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    let name = &path[1..];
    if !failed.is_empty() {
        tracing::info!(path, failed = failed.join("; "), "a health check failed");
        return respond::text(500, format!("{lines}{name} check failed\n"));
    }
    if call.query.has("verbose") { respond::text(200, format!("{lines}{name} check passed\n")) } else { respond::text(200, "ok") }
}
