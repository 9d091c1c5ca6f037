//! The condition Available of APIServices (upstream's remote `AvailableConditionController`): the Service is there, has the port
//! and a ready endpoint, and the server answers for its group version. Those that answer are asked for their documents, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use machinery::object::{self, metadata_mut, str_at};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backend;
use super::documents::{self, Documents};
use super::routes::Route;
use crate::state::Api;
use crate::{bootstrap, identifiers};

/// How often Services and endpoints are looked at while there is any other server.
const LOOK: Duration = Duration::from_secs(1);
/// How often a server that is available is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Tries at a server before it counts as failing.
const ATTEMPTS: usize = 5;

/// What is found out about one APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn failed(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }
}

pub async fn run(api: Arc<Api>, cancel: CancellationToken) {
    let mut changed = api.aggregation.changed.clone();
    let mut asked: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        changed.mark_unchanged();
        let routes = api.aggregation.remote();
        asked.retain(|name, _| routes.iter().any(|r| r.name == *name));
        forget(&api, &routes);
        let is_due = |r: &Arc<Route>| !r.available || asked.get(&r.name).is_none_or(|at: &Instant| at.elapsed() >= ASK_AGAIN);
        let due: Vec<bool> = routes.iter().map(is_due).collect();
        let checks = futures::future::join_all(routes.iter().zip(&due).map(|(route, due)| check(&api, route, *due)));
        let done = tokio::select! { biased;
            () = cancel.cancelled() => return,
            done = checks => done,
        };
        for (route, was_asked) in routes.iter().zip(done) {
            if was_asked {
                asked.insert(route.name.clone(), Instant::now());
            }
        }
        let some = !routes.is_empty();
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK), if some => {}
        }
    }
}

/// Documents of servers that are no longer registered go.
fn forget(api: &Api, routes: &[Arc<Route>]) {
    let documents = api.aggregation.documents.load();
    if documents.keys().any(|name| routes.iter().all(|r| r.name != *name)) {
        let kept = documents.iter().filter(|(name, _)| routes.iter().any(|r| r.name == **name));
        api.aggregation.documents.store(Arc::new(kept.map(|(n, d)| (n.clone(), d.clone())).collect()));
    }
}

/// Judges one; true: its server was asked.
async fn check(api: &Arc<Api>, route: &Route, due: bool) -> bool {
    let found = match service_and_endpoints(api, route).await {
        Some(failed) => Some(failed),
        None if due => Some(ask(api, route).await.map_or_else(|why| Verdict::failed("FailedDiscoveryCheck", why), |()| Verdict::passed())),
        None => None,
    };
    let Some(verdict) = found else { return false };
    match verdict.status {
        "True" => learn(api, route).await,
        _ => grow_stale(api, route),
    }
    if let Err(error) = write(api, route, &verdict).await {
        tracing::warn!(apiservice = route.name, error, "the status of an APIService could not be written");
    }
    due
}

/// What is wrong before anybody is asked.
async fn service_and_endpoints(api: &Arc<Api>, route: &Route) -> Option<Verdict> {
    let of = &route.service;
    let place = format!("service/{} in {:?}", of.name, of.namespace);
    let service = match api.read_kind("", "Service", &of.namespace, &of.name).await {
        Ok(Some(service)) => service,
        Ok(None) => return Some(Verdict::failed("ServiceNotFound", format!("{place} is not present"))),
        Err(e) => {
            let message = format!("{place} cannot be checked due to: {}", e.message);
            return Some(Verdict { status: "Unknown", reason: "ServiceAccessError", message });
        }
    };
    if !matches!(str_at(&service, "spec.type"), "" | "ClusterIP") {
        return None;
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let Some(port) = ports.into_iter().flatten().find(|p| p["port"].as_u64() == Some(u64::from(of.port))) else {
        return Some(Verdict::failed("ServicePortError", format!("{place} is not listening on port {}", of.port)));
    };
    let slices = match api.read_all("discovery.k8s.io", "EndpointSlice", &of.namespace).await {
        Ok(slices) => slices,
        Err(e) => {
            let message = format!("{place} cannot be checked due to: {}", e.message);
            return Some(Verdict { status: "Unknown", reason: "EndpointsAccessError", message });
        }
    };
    judge_slices(&slices, of, str_at(port, "name"))
}

fn judge_slices(slices: &[Value], of: &super::Service, port_name: &str) -> Option<Verdict> {
    let label = "/metadata/labels/kubernetes.io~1service-name";
    let own: Vec<&Value> = slices.iter().filter(|s| s.pointer(label).is_some_and(|n| *n == of.name.as_str())).collect();
    if own.is_empty() {
        let message = format!("cannot find endpointslices for service/{} in {:?}", of.name, of.namespace);
        return Some(Verdict::failed("EndpointsNotFound", message));
    }
    let list = |of: &Value, key: &str| of[key].as_array().cloned().unwrap_or_default();
    let serves = |slice: &&Value| {
        let ready = list(slice, "endpoints").iter().any(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        ready && list(slice, "ports").iter().any(|p| str_at(p, "name") == port_name)
    };
    if own.iter().any(serves) {
        return None;
    }
    let message = format!("endpointslices for service/{} in {:?} have no addresses with port name {port_name:?}", of.name, of.namespace);
    Some(Verdict::failed("MissingEndpoints", message))
}

/// Asks the server for its group version, at several endpoints at once: one that answers is enough.
async fn ask(api: &Arc<Api>, route: &Route) -> Result<(), String> {
    let attempt = || async {
        let document = backend::read(api, route, &route.root(), "application/json").await?;
        if (200..300).contains(&document.code) {
            return Ok(());
        }
        Err(format!("failing or missing response from {0}: bad status from {0}: {1}", document.url, document.code))
    };
    let attempts = (0..ATTEMPTS).map(|_| Box::pin(attempt()));
    futures::future::select_ok(attempts).await.map(|_| ())
}

async fn learn(api: &Arc<Api>, route: &Route) {
    match documents::read(api, route).await {
        Ok(documents) => set(api, &route.name, documents),
        Err(error) => {
            tracing::warn!(apiservice = route.name, error, "what a server serves could not be read");
            grow_stale(api, route);
        }
    }
}

fn grow_stale(api: &Api, route: &Route) {
    if let Some(known) = api.aggregation.documents(&route.name).filter(|d| d.fresh) {
        let stale = Documents {
            resources: known.resources.clone(),
            fresh: false,
            openapi_v3: known.openapi_v3.clone(),
            openapi_v2: known.openapi_v2.clone(),
        };
        set(api, &route.name, stale);
    }
}

fn set(api: &Api, name: &str, documents: Documents) {
    if api.aggregation.documents(name).is_some_and(|d| *d == documents) {
        return;
    }
    let documents = Arc::new(documents);
    api.aggregation.documents.rcu(|all| {
        let mut all = (**all).clone();
        all.insert(name.to_owned(), documents.clone());
        all
    });
}

/// Writes the condition where it says something new.
async fn write(api: &Arc<Api>, route: &Route, verdict: &Verdict) -> Result<(), String> {
    let Some(current) = api.aggregation.routes.load().all.get(&route.name).cloned() else { return Ok(()) };
    let mut conditions = current.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let at = conditions.iter().position(|c| str_at(c, "type") == "Available");
    let before = at.map(|i| conditions[i].clone()).unwrap_or_default();
    let text = |key: &str| str_at(&before, key);
    if (text("status"), text("reason"), text("message")) == (verdict.status, verdict.reason, verdict.message.as_str()) {
        return Ok(());
    }
    let since = if text("status") == verdict.status { json!(text("lastTransitionTime")) } else { json!(identifiers::now()) };
    let condition = json!({"type": "Available", "status": verdict.status, "reason": verdict.reason, "message": verdict.message,
        "lastTransitionTime": since});
    match at {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
    let mut object = (*current).clone();
    object::map_mut(&mut object, "status").insert("conditions".to_owned(), json!(conditions));
    metadata_mut(&mut object).remove("managedFields");
    bootstrap::write_as(api, Method::PUT, &object, "kube-apiserver", "status").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_judged_in_upstreams_words() {
        let of = super::super::Service { namespace: "n".into(), name: "s".into(), port: 443 };
        let slice = |port: &str, ready: bool| json!({"metadata": {"labels": {"kubernetes.io/service-name": "s"}}, "ports": [{"name": port}], "endpoints": [{"conditions": {"ready": ready}}]});
        let text = |slices: &[Value]| judge_slices(slices, &of, "https").map(|v| format!("{}: {}", v.reason, v.message));
        assert_eq!(text(&[]).unwrap(), "EndpointsNotFound: cannot find endpointslices for service/s in \"n\"");
        let missing = "MissingEndpoints: endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        assert_eq!(text(&[slice("https", false)]).unwrap(), missing);
        assert_eq!(text(&[slice("other", true)]).unwrap(), missing);
        assert_eq!(text(&[slice("other", true), slice("https", true)]), None);
    }
}
