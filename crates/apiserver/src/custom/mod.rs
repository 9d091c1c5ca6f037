//! Custom resources: what a stored CustomResourceDefinition makes of the registry, and what the server does about definitions.
//! Requests for custom resources take the same way as all others; only what is read and written passes [`convert`].
//!
//! Every server follows the definitions in the store by itself: rows are made of them, in memory, when they are established.
//! Conditions, accepted names and the end of a definition are written by [`settle`]; several servers may do so at once.

pub mod convert;
mod follow;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kinds::Resource;
use machinery::gvk::GroupVersionKind;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::mirror::{self, Progress};
use crate::registry::Registry;
use crate::request::RequestInfo;
use crate::state::Api;

/// What this server knows of definitions.
pub struct Definitions {
    known: Arc<Mutex<follow::Known>>,
    /// How far the rows are; `None` until followed.
    progress: std::sync::OnceLock<Progress>,
    changed: Arc<Notify>,
}

impl Default for Definitions {
    fn default() -> Self {
        let changed = Arc::new(Notify::new());
        Self { known: Arc::new(Mutex::new(follow::Known::new(changed.clone()))), progress: std::sync::OnceLock::new(), changed }
    }
}

/// How long the first request for a resource waits for its definition to be established.
const ESTABLISHED_WAIT_MAX: Duration = Duration::from_secs(1);

impl Definitions {
    /// A resource of a definition that was made a moment ago: it is served as soon as it is established.
    pub async fn awaited(&self, registry: &Registry, info: &RequestInfo) -> Option<Arc<Resource>> {
        let mut versions = registry.subscribe();
        let awaits = || self.known.lock().unwrap_or_else(PoisonError::into_inner).awaits(&info.group, &info.resource);
        let deadline = tokio::time::Instant::now() + ESTABLISHED_WAIT_MAX;
        while awaits() {
            match tokio::time::timeout_at(deadline, versions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
        registry.resource(&info.group, &info.version, &info.resource)
    }

    /// After a write: returns when the rows show it.
    pub async fn caught_up(&self, key: &str, revision: store::Revision) {
        crate::mirror::caught_up(self.progress.get(), key, revision).await;
    }
}

fn definition_gvk() -> GroupVersionKind {
    GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
}

/// Reads all definitions, serves those that are established, and keeps following.
pub async fn start(api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<()> {
    let Some(row) = api.registry.versioned_kind(&definition_gvk()) else { return Ok(()) };
    {
        let mut known = api.definitions.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.serve(Arc::downgrade(api));
    }
    let prefix = format!("{}/", row.storage_prefix);
    let (progress, task) = mirror::start(api.store.clone(), prefix, api.definitions.known.clone(), cancel.clone()).await?;
    tasks.spawn(task);
    if api.definitions.progress.set(progress).is_err() {
        tracing::error!("definitions are followed twice");
    }
    tasks.spawn(settle::run(api.clone(), row, cancel.clone()));
    Ok(())
}

/// The first request to delete a definition: it stays until its objects are gone.
pub fn begin_deletion(definition: &mut Value, now: &str) {
    use kinds::custom::conditions::{FINALIZER, one, set};
    let metadata = machinery::object::metadata_mut(definition);
    metadata.insert("deletionTimestamp".into(), json!(now));
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|f| f == FINALIZER) => {}
        Some(list) => list.push(json!(FINALIZER)),
        None => *finalizers = json!([FINALIZER]),
    }
    let said = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(definition, &one("Terminating", "True", "InstanceDeletionPending", said), now);
}
