//! What every request can reach: one value, made by `server`, shared by all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use kinds::Resource;
use machinery::status::{Cause, Details, StatusError};
use serde_json::Value;
use store::{Revision, Store};

use crate::admission::{Hooks, Plugins, Policies};
use crate::aggregation::Aggregation;
use crate::audit::Audit;
use crate::authn::Authenticators;
use crate::authz::Authorizer;
use crate::cache::{Cache, Caches, Extract};
use crate::config::Config;
use crate::connect::Connections;
use crate::flow::Flow;
use crate::http::browser::Browsers;
use crate::metrics::Metrics;
use crate::pki::Pki;
use crate::registry::{self, Registry};
use crate::trace::Tracer;
use crate::verbs::write::Object;
use crate::{attributes, cache, codec};

pub struct Api {
    pub config: Config,
    pub store: Arc<dyn Store>,
    /// Trees of objects changed a moment ago.
    pub decoded: crate::decoded::Decoded,
    /// What lists and watches read.
    pub caches: Caches,
    pub pki: Arc<Pki>,
    pub registry: Registry,
    /// OpenAPI of custom resources.
    pub openapi: crate::openapi::custom::Documents,
    pub discovery: crate::discovery::Documents,
    /// The definitions of custom resources.
    pub definitions: crate::custom::Definitions,
    pub authn: Authenticators,
    pub authorizer: Authorizer,
    pub plugins: Plugins,
    /// API groups that other servers serve.
    pub aggregation: Aggregation,
    /// The configured admission webhooks.
    pub hooks: Hooks,
    /// The admission policies in force.
    pub policies: Policies,
    pub metrics: Arc<Metrics>,
    pub flow: Arc<Flow>,
    pub audit: Audit,
    pub browsers: Browsers,
    pub tracer: Option<Tracer>,
    /// What encrypts the store, if anything does: `store` is it.
    pub encryption: Option<encryption::Encrypted>,
    /// The servers of the cluster that live, where they share a store.
    pub(crate) masters: ArcSwap<BTreeSet<IpAddr>>,
    /// To kubelets and proxied servers.
    pub connections: Connections,
    pub webhooks: crate::webhook::Pool,
    /// Components of the control plane that run in this process, by their names among `componentstatuses`.
    pub companions: std::sync::Mutex<std::collections::BTreeSet<&'static str>>,
    /// When this server began.
    pub started: std::time::Instant,
    /// The port really listened on.
    pub port: u16,
    pub(crate) ready: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// No new request is taken.
    pub(crate) draining: AtomicBool,
}

impl Api {
    /// Whether a component of the control plane runs in this process.
    pub fn runs_beside(&self, component: &str) -> bool {
        self.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(component)
    }

    /// The watch cache of a resource, which all versions of a built-in kind share; each version of a custom resource has its own.
    pub fn cache(self: &Arc<Self>, resource: &Resource) -> Arc<Cache> {
        let prefix = registry::prefix(resource, "");
        let Some(custom) = &resource.custom else { return self.caches.get(&prefix, || attributes::extract(resource)) };
        let id = cache_id(resource, custom);
        let cache = self.caches.get_as(&id, &prefix, || Extract {
            serve: Some(crate::custom::convert::for_cache(self, resource)),
            ..attributes::extract(resource)
        });
        let current = self.registry.resource(&resource.group, &resource.version, &resource.resource);
        if current.is_none_or(|row| row.custom.as_ref().is_none_or(|c| !Arc::ptr_eq(c, custom))) {
            // The definition has changed meanwhile: nobody would ever end this cache.
            self.caches.remove(&id);
        }
        cache
    }

    /// Ends the watch cache of a custom resource, and with it all watches.
    pub(crate) fn forget_cache(&self, resource: &Resource) {
        if let Some(custom) = &resource.custom {
            self.caches.remove(&cache_id(resource, custom));
        }
    }

    /// Starts the watch caches of all kinds, so that watches can begin at any revision from now on.
    pub(crate) fn start_caches(self: &Arc<Self>) {
        for resource in attributes::stored_kinds(&self.registry.snapshot()) {
            self.cache(resource);
        }
    }

    /// An object as stored, for the server's own decisions; `None` where there is none.
    pub async fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, StatusError> {
        let (_, found) = self.store.get(&registry::key(resource, namespace, name)).await.map_err(store_error)?;
        Ok(found.map(|kv| codec::decode(&kv.value, kv.mod_revision)))
    }

    /// As [`Api::read`], of what is read again and again: a namespace by everything made in it.
    pub async fn read_hot(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, StatusError> {
        let key = registry::key(resource, namespace, name);
        let Some(kv) = self.store.get(&key).await.map_err(store_error)?.1 else { return Ok(None) };
        if let Some(object) = self.decoded.get(&key, kv.mod_revision) {
            return Ok(Some(object));
        }
        let object = Arc::new(Object::apart(resource, codec::decode(&kv.value, kv.mod_revision)));
        self.decoded.keep(&key, kv.mod_revision, &object, kv.value.len());
        Ok(Some(object))
    }

    /// [`Api::read`] by group and kind.
    pub async fn read_kind(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>, StatusError> {
        match self.registry.kind(group, kind) {
            Some(resource) => self.read(&resource, namespace, name).await,
            None => Ok(None),
        }
    }

    /// All objects of a kind, or those in a namespace.
    pub async fn read_all(&self, group: &str, kind: &str, namespace: &str) -> Result<Vec<Value>, StatusError> {
        let Some(resource) = self.registry.kind(group, kind) else { return Ok(Vec::new()) };
        let prefix = registry::prefix(&resource, namespace);
        let listing = self.store.list(&prefix, store::ListOptions::default()).await.map_err(store_error)?;
        Ok(listing.items.iter().map(|kv| codec::decode(&kv.value, kv.mod_revision)).collect())
    }

    /// An object as the watch cache has it, which may be a moment old: for decisions that upstream takes from informers.
    pub fn cached(self: &Arc<Self>, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = self.registry.kind(group, kind)?;
        let entry = self.cache(&resource).get(&registry::key(&resource, namespace, name))?;
        Some(codec::decode(&entry.bytes, entry.revision))
    }

    /// All objects of a kind, or those in a namespace, as the watch cache has them.
    pub fn cached_all(self: &Arc<Self>, group: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let Some(resource) = self.registry.kind(group, kind) else { return Vec::new() };
        let snapshot = self.cache(&resource).snapshot();
        snapshot.range(&registry::prefix(&resource, namespace), None).map(|entry| codec::decode(&entry.bytes, entry.revision)).collect()
    }

    /// Whether there are any, with every write that was answered before: for decisions that upstream takes from informers only
    /// as long as those know something, and else from the store.
    pub async fn has_current(self: &Arc<Self>, group: &str, kind: &str, namespace: &str) -> Result<bool, StatusError> {
        let Some(resource) = self.registry.kind(group, kind) else { return Ok(false) };
        let cache = self.cache(&resource);
        Ok(cache.newest().await.map_err(cache_error)?.range(&registry::prefix(&resource, namespace), None).next().is_some())
    }

    /// Returns when this server's own decisions know of a write.
    pub async fn caught_up(&self, key: &str, revision: Revision) {
        self.authorizer.caught_up(key, revision).await;
        self.definitions.caught_up(key, revision).await;
        self.hooks.caught_up(key, revision).await;
        self.policies.caught_up(key, revision).await;
        self.aggregation.caught_up(key, revision).await;
    }
}

/// Names the cache of one making of a row.
fn cache_id(resource: &Resource, custom: &Arc<kinds::Custom>) -> String {
    format!("{}/{}@{:p}", resource.storage_prefix, resource.version, Arc::as_ptr(custom))
}

/// A failed store, for a client.
pub fn store_error(error: store::Error) -> StatusError {
    match error {
        store::Error::Compacted { .. } => StatusError::expired("The resourceVersion for the provided list is too old."),
        // As upstream passes on what etcd says then: no reason, and words that scripts look for.
        store::Error::NoSpace(why) => StatusError::new(500, "", format!("etcdserver: mvcc: database space exceeded: {why}")),
        store::Error::Unavailable(why) => StatusError::new(503, "ServiceUnavailable", why),
        store::Error::Cluster(text) => cluster_error(text),
        store::Error::Timeout(_) => out_of_time(),
        error @ store::Error::Failed(_) => failed(error.to_string()),
        other => StatusError::internal(other.to_string()),
    }
}

/// What etcd says goes to the client as it is, and has no reason.
fn cluster_error(text: String) -> StatusError {
    StatusError::new(500, "", text)
}

/// Nothing is told or written until the process has started again.
fn failed(text: String) -> StatusError {
    StatusError::new(503, "ServiceUnavailable", text)
}

fn out_of_time() -> StatusError {
    StatusError::new(504, "Timeout", "Timeout: request did not complete within requested timeout - context deadline exceeded")
}

/// A cache that cannot answer, for a client.
pub fn cache_error(error: cache::Error) -> StatusError {
    match error {
        cache::Error::TooOld { .. } => StatusError::expired("The resourceVersion for the provided list is too old."),
        cache::Error::TooLarge { wanted, current } => {
            let message = format!("Timeout: Too large resource version: {}, current: {}", wanted.0, current.0);
            let cause =
                Cause { reason: "ResourceVersionTooLarge".into(), message: "Too large resource version".into(), field: String::new() };
            let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
            StatusError { details: Some(Box::new(details)), ..StatusError::new(504, "Timeout", message) }
        }
        cache::Error::Cluster(text) => cluster_error(text),
        cache::Error::Timeout(_) => out_of_time(),
        cache::Error::Failed(text) => failed(text),
        cache::Error::Closed | cache::Error::Unavailable(_) => StatusError::too_many_requests("storage is (re)initializing", 1),
    }
}
