//! `/configz`, `/flagz`, `/statusz`: what the server runs with, for people who look for a fault.

use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::root;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for \
                       debugging purposes only.";

pub fn serve(call: &Call, path: &str) -> Answer {
    if path == "/configz" {
        // The API server has no component configuration; upstream answers the same.
        return respond::bytes(200, "application/json", "{}\n");
    }
    let accept = call.headers.get(http::header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or("*/*");
    if !accept.split(',').any(|a| matches!(a.split(';').next().unwrap_or("").trim(), "*/*" | "text/*" | "text/plain")) {
        return respond::text(406, format!("{path}: only text/plain is served\n"));
    }
    let body = if path == "/flagz" { flags(call) } else { status(call) };
    respond::text(200, body)
}

fn flags(call: &Call) -> String {
    let mut out = format!("\nkube-apiserver flagz\n{WARNING}\n\n");
    let mut flags = call.api.config.flags.clone();
    flags.sort();
    for (name, value) in flags {
        out.push_str(&format!("{name}={value}\n"));
    }
    out
}

fn status(call: &Call) -> String {
    let version = root::version();
    let text = |key: &str| version.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let up = call.api.started.elapsed().as_secs();
    let now = jiff::Timestamp::now();
    let started = now.checked_sub(jiff::SignedDuration::from_secs(i64::try_from(up).unwrap_or(0))).unwrap_or(now);
    let lines = [
        ("Started", started.strftime("%a %b %e %H:%M:%S UTC %Y").to_string()),
        ("Up", format!("{} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60)),
        ("Go version", text("goVersion")),
        ("Binary version", text("gitVersion").trim_start_matches('v').to_owned()),
        ("Emulation version", format!("{}.{}", text("emulationMajor"), text("emulationMinor"))),
        ("Paths", "/configz /flagz /healthz /livez /metrics /readyz /statusz /version".to_owned()),
    ];
    let mut out = format!("\nkube-apiserver statusz\n{WARNING}\n\n");
    for (name, value) in lines {
        out.push_str(&format!("{name}: {value}\n"));
    }
    out
}
