//! The aggregation layer (kube-aggregator): API groups that other servers serve. An APIService says which server is behind a
//! group version; requests for it are passed on, discovery and OpenAPI show it as one of ours.
//!
//! [`routes`] follows the APIServices, [`register`] makes those of what is served here, [`availability`] judges and asks the
//! back ends, [`proxy`] passes requests on. The chain asks [`Aggregation::route`] before it looks for a resource of our own.

mod availability;
mod backend;
pub mod discovery;
mod documents;
pub mod openapi;
mod proxy;
mod register;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use documents::Documents;
pub use proxy::serve;
pub use routes::{Route, Service};

use crate::error::{Error, Result};
use crate::mirror::{self, Progress};
use crate::pki::Pki;
use crate::registry::Registry;
use crate::request::RequestInfo;
use crate::state::Api;
use crate::webhook::Identity;

/// What is known of APIServices and of the servers behind them.
pub struct Aggregation {
    routes: Arc<ArcSwap<routes::Routes>>,
    changed: watch::Receiver<u64>,
    progress: Vec<Progress>,
    /// What the servers say of themselves, by the name of their APIService.
    documents: ArcSwap<BTreeMap<String, Arc<Documents>>>,
}

impl Aggregation {
    /// Reads the APIServices and spawns what follows them.
    pub async fn start(
        store: &Arc<dyn Store>,
        registry: &Registry,
        pki: &Pki,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let proxy = pki.front_proxy_client()?;
        let identity = Identity { cert_pem: proxy.cert_pem.as_bytes().into(), key_pem: proxy.key_pem.as_bytes().into() };
        let routes = Arc::<ArcSwap<routes::Routes>>::default();
        let (sender, changed) = watch::channel(0);
        let row = registry.kind(routes::GROUP, routes::KIND).ok_or_else(|| Error::Bootstrap("there is no APIService".to_owned()))?;
        let sink = Arc::new(Mutex::new(routes::Follower::new(identity, routes.clone(), sender)));
        let (progress, task) = mirror::start(store.clone(), format!("{}/", row.storage_prefix), sink, cancel.clone()).await?;
        tasks.spawn(task);
        Ok(Self { routes, changed, progress: vec![progress], documents: ArcSwap::default() })
    }

    /// Spawns what registers and judges, once the server can answer itself.
    pub async fn run(api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<()> {
        register::ensure(api).await.map_err(Error::Bootstrap)?;
        tasks.spawn(register::run(api.clone(), cancel.clone()));
        tasks.spawn(availability::run(api.clone(), cancel.clone()));
        Ok(())
    }

    /// After a write: returns when requests are routed by it.
    pub async fn caught_up(&self, key: &str, revision: store::Revision) {
        crate::mirror::caught_up(&self.progress, key, revision).await;
    }

    /// Where a request goes, if not to a resource of our own.
    pub fn route(&self, info: &RequestInfo) -> Option<Arc<Route>> {
        let routes = self.routes.load();
        if routes.remote.is_empty() {
            return None;
        }
        if info.is_resource {
            return routes.of(&info.group, &info.version);
        }
        // The group version itself: its list of resources.
        let mut parts = info.path.trim_matches('/').split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("apis"), Some(group), Some(version), None) => routes.of(group, version),
            (Some("api"), Some(version), None, None) => routes.of("", version),
            _ => None,
        }
    }

    /// All routes to other servers.
    pub fn remote(&self) -> Vec<Arc<Route>> {
        self.routes.load().remote.values().cloned().collect()
    }

    pub fn has_remote(&self) -> bool {
        !self.routes.load().remote.is_empty()
    }

    /// What a server says of itself, as far as it was reached yet.
    pub fn documents(&self, name: &str) -> Option<Arc<Documents>> {
        self.documents.load().get(name).cloned()
    }
}
