//! APIServices as routes: which group version is served by which server, and how that is trusted. Followed in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use machinery::object::{self, str_at};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::watch;

use crate::mirror::Sink;
use crate::webhook::{Identity, Trust, trust};

pub const GROUP: &str = "apiregistration.k8s.io";
pub const KIND: &str = "APIService";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl Service {
    /// Whom its certificate must be for.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// One APIService with a server behind it.
pub struct Route {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    pub service: Service,
    /// Its condition Available.
    pub available: bool,
    pub tls: Result<Arc<ClientConfig>, String>,
    /// What the connection depends on: equal ones need no new TLS configuration.
    spec: Value,
}

impl Route {
    /// Where discovery of the group version is.
    pub fn root(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}/{}", self.group, self.version) }
    }
}

#[derive(Default)]
pub struct Routes {
    /// By group and version.
    pub remote: BTreeMap<(String, String), Arc<Route>>,
    /// All APIServices by name, also of what is served here.
    pub all: BTreeMap<String, Arc<Value>>,
}

impl Routes {
    pub fn of(&self, group: &str, version: &str) -> Option<Arc<Route>> {
        self.remote.iter().find(|((g, v), _)| g == group && v == version).map(|(_, route)| route.clone())
    }
}

/// Feeds [`Routes`] from the store.
pub struct Follower {
    identity: Identity,
    by_key: BTreeMap<String, (Arc<Value>, Option<Arc<Route>>)>,
    routes: Arc<ArcSwap<Routes>>,
    changed: watch::Sender<u64>,
}

impl Follower {
    pub fn new(identity: Identity, routes: Arc<ArcSwap<Routes>>, changed: watch::Sender<u64>) -> Self {
        Self { identity, by_key: BTreeMap::new(), routes, changed }
    }

    fn route(&self, object: &Value, before: Option<&Arc<Route>>) -> Option<Arc<Route>> {
        let spec = object.get("spec")?;
        let service = spec.get("service").filter(|s| s.is_object())?;
        let port = service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        let service = Service { namespace: str_at(service, "namespace").to_owned(), name: str_at(service, "name").to_owned(), port };
        let kept = before.filter(|b| b.spec == *spec).map(|b| b.tls.clone());
        let number = |key: &str| spec.get(key).and_then(Value::as_i64).unwrap_or(0);
        Some(Arc::new(Route {
            name: object::name(object).to_owned(),
            group: str_at(spec, "group").to_owned(),
            version: str_at(spec, "version").to_owned(),
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
            service,
            available: is_available(object),
            tls: kept.unwrap_or_else(|| self.tls(spec)),
            spec: spec.clone(),
        }))
    }

    fn tls(&self, spec: &Value) -> Result<Arc<ClientConfig>, String> {
        let bundle = str_at(spec, "caBundle");
        let believed = match (spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true)), bundle) {
            (true, _) => Trust::Any,
            (false, "") => Trust::System,
            (false, bundle) => Trust::bundle_base64(bundle)?,
        };
        trust::client_config(&believed, Some(&self.identity)).map(Arc::new)
    }
}

fn is_available(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| str_at(c, "type") == "Available" && str_at(c, "status") == "True")
}

impl Sink for Follower {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        match object {
            Some(object) => {
                let route = self.route(object, self.by_key.get(key).and_then(|(_, route)| route.as_ref()));
                self.by_key.insert(key.to_owned(), (Arc::new(object.clone()), route));
            }
            None => drop(self.by_key.remove(key)),
        }
    }

    fn settled(&mut self) {
        let all = self.by_key.values().map(|(object, _)| (object::name(object).to_owned(), object.clone())).collect();
        let remote = self.by_key.values().filter_map(|(_, route)| route.clone());
        let remote = remote.map(|r| ((r.group.clone(), r.version.clone()), r)).collect();
        self.routes.store(Arc::new(Routes { remote, all }));
        self.changed.send_modify(|n| *n += 1);
    }
}
