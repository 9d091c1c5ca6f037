//! `/healthz`, `/livez`, `/readyz`: one check after another, verbose if asked or if one fails.

use crate::chain::Call;
use crate::http::respond::{self, Answer};

/// Names upstream's checks have, each with whether this server is in that state.
const CHECKS: [&str; 8] = [
    "ping",
    "log",
    "etcd",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/bootstrap-controller",
];
/// `/readyz` alone has this: false while the server stops.
const SHUTDOWN: &str = "shutdown";

pub fn paths() -> Vec<String> {
    let mut out = Vec::new();
    for path in ["/healthz", "/livez", "/readyz"] {
        out.push(path.to_owned());
        out.extend(checks(path).map(|c| format!("{path}/{c}")));
    }
    out
}

fn checks(path: &str) -> impl Iterator<Item = &'static str> {
    CHECKS.into_iter().chain((path == "/readyz").then_some(SHUTDOWN))
}

async fn passes(call: &Call, check: &str) -> bool {
    match check {
        "ping" | "log" => true,
        "etcd" => call.api.store.revision().await.is_ok(),
        SHUTDOWN => !call.api.stopping.load(std::sync::atomic::Ordering::Acquire),
        // What bootstrap made; it made all of it before the server became ready.
        _ => call.api.ready.load(std::sync::atomic::Ordering::Acquire),
    }
}

/// The answer for a path, or for one check below it.
pub async fn serve(call: &Call, path: &str, one: Option<&str>) -> Answer {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let (mut lines, mut failed, mut found) = (String::new(), false, Vec::new());
    let wanted: Vec<&'static str> = checks(path).filter(|c| one.is_none_or(|o| o == *c)).collect();
    for check in wanted {
        if excluded.contains(&check) {
            found.push(check);
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if passes(call, check).await {
            lines.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    if one.is_some() {
        return match (lines.is_empty(), failed) {
            (true, _) => respond::page_not_found(),
            (false, false) => respond::text(200, "ok"),
            (false, true) => respond::text(500, "internal server error: reason withheld\n"),
        };
    }
    let unknown: Vec<String> = excluded.iter().filter(|e| !found.contains(e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    let name = &path[1..];
    match (failed, call.query.has("verbose")) {
        (true, _) => respond::text(500, format!("{lines}{name} check failed\n")),
        (false, true) => respond::text(200, format!("{lines}{name} check passed\n")),
        (false, false) => respond::text(200, "ok"),
    }
}
