//! Probes and lifecycle handlers.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{named, non_negative, one_of, port, port_or_name, required};
use super::tree::{int, int0, list, opt, s};

const NON_NEGATIVE_FIELDS: [&str; 5] = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

/// A container's probe at `key`.
pub fn probe(container: &Value, key: &str, kind: Kind, grace_seconds: i64, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(container, key) else { return };
    let p = p.child(key);
    handler(v, grace_seconds, &p, e);
    for key in NON_NEGATIVE_FIELDS {
        non_negative(v, key, &p, e);
    }
    let at = p.child("terminationGracePeriodSeconds");
    if let Some(n) = int(v, "terminationGracePeriodSeconds") {
        if n <= 0 {
            e.push(Error::invalid(&at, &json!(n), "must be greater than 0"));
        }
        if kind == Kind::Readiness {
            e.push(Error::invalid(&at, &json!(n), "must not be set for readinessProbes"));
        }
    }
    if kind != Kind::Readiness && int0(v, "successThreshold") != 1 {
        e.push(Error::invalid(&p.child("successThreshold"), &json!(int0(v, "successThreshold")), "must be 1"));
    }
}

/// `lifecycle`: what runs after a start and before a stop.
pub fn lifecycle(container: &Value, os: &str, grace_seconds: i64, p: &Path<'_>, e: &mut ErrorList) {
    let Some(v) = opt(container, "lifecycle") else { return };
    let p = p.child("lifecycle");
    for key in ["postStart", "preStop"] {
        if let Some(h) = opt(v, key) {
            handler(h, grace_seconds, &p.child(key), e);
        }
    }
    if let Some(signal) = opt(v, "stopSignal").and_then(Value::as_str) {
        stop_signal(signal, os, &p.child("stopSignal"), e);
    }
}

/// What a container on linux may be stopped with, sorted.
const SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn stop_signal(signal: &str, os: &str, p: &Path<'_>, e: &mut ErrorList) {
    if os.is_empty() {
        e.push(Error::forbidden(p, "may not be set for containers with empty `spec.os.name`"));
    } else if os == "windows" {
        one_of(p, signal, &["SIGKILL", "SIGTERM"], e);
    } else if os == "linux" {
        one_of(p, signal, &SIGNALS, e);
    }
}

fn handler(v: &Value, grace_seconds: i64, p: &Path<'_>, e: &mut ErrorList) {
    let mut found = 0;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(h) = opt(v, key) else { continue };
        let p = p.child(key);
        found += 1;
        if found > 1 {
            e.push(Error::forbidden(&p, "may not specify more than 1 handler type"));
            continue;
        }
        match key {
            "exec" => {
                required(h, "command", &p, e);
            }
            "httpGet" => http_get(h, &p, e),
            "tcpSocket" => port_or_name(opt(h, "port"), &p.child("port"), e),
            "grpc" => port(&p.child("port"), int0(h, "port"), e),
            _ => sleep(int0(h, "seconds"), grace_seconds, &p, e),
        }
    }
    if found == 0 {
        e.push(Error::required(p, "must specify a handler type"));
    }
}

fn sleep(seconds: i64, grace_seconds: i64, p: &Path<'_>, e: &mut ErrorList) {
    if seconds < 0 || seconds > grace_seconds {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        e.push(Error::invalid(p, &json!(seconds), text));
    }
}

fn http_get(h: &Value, p: &Path<'_>, e: &mut ErrorList) {
    required(h, "path", p, e);
    port_or_name(opt(h, "port"), &p.child("port"), e);
    one_of(&p.child("scheme"), s(h, "scheme"), &["HTTP", "HTTPS"], e);
    for header in list(h, "httpHeaders") {
        let name = s(header, "name");
        named(&p.child("httpHeaders"), name, names::http_header_name(name), e);
    }
}
