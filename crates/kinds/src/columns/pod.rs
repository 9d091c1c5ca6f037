//! The row of a pod: Name, Ready, Status, Restarts, Age, IP, Node, Nominated Node, Readiness Gates.

use serde_json::{Value, json};

use super::{age, name};
use crate::validate::tree::{at, flag, has, int0, list, opt, s};

pub fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let empty = json!({});
    let (spec, status) = (opt(pod, "spec").unwrap_or(&empty), opt(pod, "status").unwrap_or(&empty));
    let row = Row::of(pod, spec, status);
    let restarts = match row.last_restart.filter(|_| row.restarts != 0) {
        Some(then) => format!("{} ({} ago)", row.restarts, machinery::time::human_duration(now - then)),
        None => row.restarts.to_string(),
    };
    let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let ip = list(status, "podIPs").first().map_or("", |ip| s(ip, "ip"));
    vec![
        name(pod),
        json!(format!("{}/{}", row.ready, row.total)),
        json!(row.reason),
        json!(restarts),
        age(pod, now),
        json!(or_none(ip)),
        json!(or_none(s(spec, "nodeName"))),
        json!(or_none(s(status, "nominatedNodeName"))),
        json!(readiness_gates(spec, status)),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = list(spec, "readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = |gate: &Value| condition(status, s(gate, "conditionType")).is_some_and(|c| s(c, "status") == "True");
    format!("{}/{}", gates.iter().filter(|g| met(g)).count(), gates.len())
}

fn condition<'a>(status: &'a Value, ty: &str) -> Option<&'a Value> {
    list(status, "conditions").iter().find(|c| s(c, "type") == ty)
}

struct Row {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<i64>,
    reason: String,
}

impl Row {
    fn of(pod: &Value, spec: &Value, status: &Value) -> Self {
        let phase = s(status, "phase");
        let own = s(status, "reason");
        let mut row = Self {
            ready: 0,
            total: list(spec, "containers").len(),
            restarts: 0,
            last_restart: None,
            reason: if own.is_empty() { phase.to_owned() } else { own.to_owned() },
        };
        if condition(status, "PodScheduled").is_some_and(|c| s(c, "reason") == "SchedulingGated") {
            row.reason = "SchedulingGated".to_owned();
        }
        let sidecar = |name: &str| list(spec, "initContainers").iter().any(|c| s(c, "name") == name && s(c, "restartPolicy") == "Always");
        row.total += list(spec, "initContainers").iter().filter(|c| s(c, "restartPolicy") == "Always").count();
        let (mut initializing, mut sidecar_restarts, mut sidecar_last) = (false, 0, None);
        for (i, c) in list(status, "initContainerStatuses").iter().enumerate() {
            row.restarts += int0(c, "restartCount");
            row.last_restart = row.last_restart.max(ended_at(c));
            if sidecar(s(c, "name")) {
                sidecar_restarts += int0(c, "restartCount");
                sidecar_last = sidecar_last.max(ended_at(c));
            }
            if at(c, "state.terminated").is_some_and(|t| int0(t, "exitCode") == 0) {
                continue;
            }
            if sidecar(s(c, "name")) && flag(c, "started") {
                row.ready += usize::from(flag(c, "ready"));
                continue;
            }
            row.reason = init_reason(c, i, list(spec, "initContainers").len());
            initializing = true;
            break;
        }
        if !initializing || condition(status, "Initialized").is_some_and(|c| s(c, "status") == "True") {
            row.restarts = sidecar_restarts;
            row.last_restart = sidecar_last;
            row.regular(status);
        }
        if opt(pod, "metadata").is_some_and(|m| has(m, "deletionTimestamp")) {
            if own == "NodeLost" {
                row.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Failed" | "Succeeded") {
                row.reason = "Terminating".to_owned();
            }
        }
        row
    }

    fn regular(&mut self, status: &Value) {
        let mut running = false;
        for c in list(status, "containerStatuses").iter().rev() {
            self.restarts += int0(c, "restartCount");
            self.last_restart = self.last_restart.max(ended_at(c));
            let waiting = at(c, "state.waiting").map_or("", |w| s(w, "reason"));
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(t) = at(c, "state.terminated") {
                self.reason = match (s(t, "reason"), int0(t, "signal")) {
                    ("", 0) => format!("ExitCode:{}", int0(t, "exitCode")),
                    ("", signal) => format!("Signal:{signal}"),
                    (reason, _) => reason.to_owned(),
                };
            } else if flag(c, "ready") && at(c, "state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // One that ended among others that run does not end the pod.
        if self.reason == "Completed" && running {
            let ready = condition(status, "Ready").is_some_and(|c| s(c, "status") == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn ended_at(c: &Value) -> Option<i64> {
    at(c, "lastState.terminated.finishedAt").and_then(Value::as_str).and_then(machinery::time::parse)
}

fn init_reason(c: &Value, i: usize, total: usize) -> String {
    if let Some(t) = at(c, "state.terminated") {
        return match (s(t, "reason"), int0(t, "signal")) {
            ("", 0) => format!("Init:ExitCode:{}", int0(t, "exitCode")),
            ("", signal) => format!("Init:Signal:{signal}"),
            (reason, _) => format!("Init:{reason}"),
        };
    }
    match at(c, "state.waiting").map_or("", |w| s(w, "reason")) {
        "" | "PodInitializing" => format!("Init:{i}/{total}"),
        reason => format!("Init:{reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pod() {
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"containers": [{"name": "c"}], "nodeName": "n"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
                    "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:30Z"}}}]}});
        assert_eq!(json!(cells(&pod, 90)), json!(["a", "1/1", "Running", "2 (60s ago)", "90s", "10.0.0.1", "n", "<none>", "<none>"]));
    }
}
