//! What a fresh cluster holds before anybody asks: namespaces, RBAC objects, priorities, the API's own Service. Made through
//! the same chain as every other write, and put right again from time to time.

mod masters;
mod objects;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use kinds::Resource;
use serde::Deserialize;
use serde_json::Value;
use store::Revision;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::authn::Origin;
use crate::error::{Error, Result};
use crate::http::body::boxed;
use crate::service::repair::{self, Leaks};
use crate::state::{Api, store_error};
use crate::{chain, registry};

/// How often what must exist is looked after.
const REPAIR_EVERY: Duration = Duration::from_secs(60);

const TRIES: u32 = 10;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Makes what is missing, then keeps doing so in the background; also compacts the store.
pub async fn run(api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<()> {
    if api.config.shared_store {
        masters::announce(api).await.map_err(Error::Bootstrap)?;
        tasks.spawn(masters::keep(api.clone(), cancel.clone()));
    }
    let mut tries = 0;
    let mut good = Good::default();
    while let Err(error) = ensure(api, &mut good).await {
        tries += 1;
        if tries == TRIES {
            return Err(Error::Bootstrap(error));
        }
        // A datastore over the network may have a bad moment; what was made is not made twice.
        tracing::warn!(%error, "what every cluster has could not be made; trying again");
        tokio::time::sleep(RETRY_AFTER).await;
    }
    let mut leaks = Leaks::default();
    repair::run(api, &mut leaks).await.map_err(Error::Bootstrap)?;
    tasks.spawn(look_after(api.clone(), good, leaks, cancel.clone()));
    if !api.config.compaction_interval.is_zero() {
        tasks.spawn(compact(api.clone(), cancel.clone()));
    }
    Ok(())
}

async fn look_after(api: Arc<Api>, mut good: Good, mut leaks: Leaks, cancel: CancellationToken) {
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(REPAIR_EVERY) => {}
        }
        if let Err(error) = ensure(&api, &mut good).await {
            tracing::warn!(%error, "what every cluster has could not be put right");
        }
        if let Err(error) = repair::run(&api, &mut leaks).await {
            tracing::warn!(%error, "the claims of Services could not be looked after");
        }
    }
}

/// Forgets history older than one interval, as upstream's compactor does.
async fn compact(api: Arc<Api>, cancel: CancellationToken) {
    let mut last = None;
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(api.config.compaction_interval) => {}
        }
        let now = match api.store.revision().await {
            Ok(revision) => revision,
            Err(error) => {
                tracing::warn!(%error, "the store's revision cannot be read");
                continue;
            }
        };
        let Some(revision) = last.replace(now) else { continue };
        match api.store.compact(revision).await {
            // Where nothing was written, or another server was first, it is done already.
            Ok(()) | Err(store::Error::Compacted { .. }) => api.caches.forget_before(revision),
            Err(error) => tracing::warn!(%error, "the store cannot be compacted"),
        }
    }
}

/// The objects that are always the same, by key, as they were when they were found good: as long as nobody writes them, they need
/// not be looked at. To make them anew and to compare them every minute was most of what an idle server did: it mapped 18 MiB
/// of code and memory for it.
#[derive(Default)]
struct Good(BTreeMap<String, Revision>);

impl Good {
    async fn are_untouched(&self, api: &Api) -> Result<bool, String> {
        for (key, revision) in &self.0 {
            let (_, found) = api.store.get(key).await.map_err(|e| store_error(e).message)?;
            if found.is_none_or(|found| found.mod_revision != *revision) {
                return Ok(false);
            }
        }
        Ok(!self.0.is_empty())
    }
}

async fn ensure(api: &Arc<Api>, good: &mut Good) -> Result<(), String> {
    if !good.are_untouched(api).await? {
        let mut found = BTreeMap::new();
        for object in objects::fixed(api) {
            let (key, revision) = ensure_one(api, &object).await?;
            found.insert(key, revision);
        }
        for sum in objects::sums() {
            if let Some((key, revision)) = ensure_sum(api, &sum).await? {
                found.insert(key, revision);
            }
        }
        good.0 = found;
    }
    for object in objects::changing(api) {
        ensure_one(api, &object).await?;
    }
    Ok(())
}

/// A sum nobody has added up yet gets its rules.
async fn ensure_sum(api: &Arc<Api>, sum: &Value) -> Result<Option<(String, Revision)>, String> {
    let row = row_of(api, sum)?;
    let name = machinery::object::name(sum);
    let current = api.read(&row, "", name).await.map_err(|e| e.message)?;
    let empty = |o: &Value| o.get("rules").and_then(Value::as_array).is_none_or(Vec::is_empty);
    match current {
        // As the controller would have done it.
        Some(current) if empty(&current) => {
            let revision = send(api, &row, Method::PATCH, sum, "clusterrole-aggregation-controller", "").await?;
            Ok(Some((registry::key(&row, "", name), revision)))
        }
        _ => Ok(None),
    }
}

fn row_of(api: &Api, object: &Value) -> Result<Arc<Resource>, String> {
    let gv = machinery::gvk::GroupVersion::parse(machinery::object::str_at(object, "apiVersion"))?;
    let gvk = gv.kind(machinery::object::str_at(object, "kind"));
    api.registry.versioned_kind(&gvk).ok_or_else(|| format!("no resource for {gvk}"))
}

/// Answers the object's key, and the revision at which it is good.
async fn ensure_one(api: &Arc<Api>, object: &Value) -> Result<(String, Revision), String> {
    let row = row_of(api, object)?;
    let (namespace, name) = (machinery::object::namespace(object), machinery::object::name(object));
    let key = registry::key(&row, namespace, name);
    let (_, found) = api.store.get(&key).await.map_err(|e| store_error(e).message)?;
    let Some(found) = found else { return Ok((key, write(api, &row, Method::POST, object).await?)) };
    let current = crate::codec::decode(&found.value, found.mod_revision);
    let revision = match objects::repaired(object, &current) {
        Some(wanted) => write(api, &row, Method::PUT, &wanted).await?,
        None => found.mod_revision,
    };
    Ok((key, revision))
}

async fn write(api: &Arc<Api>, row: &Resource, method: Method, object: &Value) -> Result<Revision, String> {
    send(api, row, method, object, "kube-apiserver", "").await
}

/// Writes an object of the server's own under a field manager's name: POST makes it, PUT replaces, DELETE deletes, PATCH
/// applies. Another server of the cluster may have been faster; that is no error.
pub async fn write_as(api: &Arc<Api>, method: Method, object: &Value, manager: &str, subresource: &str) -> Result<(), String> {
    let row = row_of(api, object)?;
    send(api, &row, method, object, manager, subresource).await.map(|_| ())
}

/// What is read of an answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    metadata: WrittenMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenMeta {
    resource_version: String,
}

/// Answers the revision of what was written; zero where it was not by this request.
async fn send(
    api: &Arc<Api>,
    row: &Resource,
    method: Method,
    object: &Value,
    manager: &str,
    subresource: &str,
) -> Result<Revision, String> {
    let base = if row.group.is_empty() { format!("/api/{}", row.version) } else { format!("/apis/{}/{}", row.group, row.version) };
    let namespace = machinery::object::namespace(object);
    let mut path =
        if namespace.is_empty() { format!("{base}/{}", row.resource) } else { format!("{base}/namespaces/{namespace}/{}", row.resource) };
    if method != Method::POST {
        path.push_str(&format!("/{}", machinery::object::name(object)));
    }
    if !subresource.is_empty() {
        path.push_str(&format!("/{subresource}"));
    }
    let apply = method == Method::PATCH;
    let deletes = method == Method::DELETE;
    let query = if deletes { String::new() } else { format!("?fieldManager={manager}{}", if apply { "&force=true" } else { "" }) };
    let body = if deletes { Bytes::new() } else { Bytes::from(object.to_string()) };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}{query}"))
        .header(http::header::CONTENT_TYPE, if apply { "application/apply-patch+yaml" } else { "application/json" })
        .body(boxed(Full::new(body)))
        .map_err(|e| e.to_string())?;
    let answer = chain::handle(api.clone(), request, Origin::InProcess(auth::User::apiserver())).await;
    let status = answer.status();
    if status == http::StatusCode::CONFLICT || deletes && status == http::StatusCode::NOT_FOUND {
        return Ok(Revision(0));
    }
    let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if status.is_success() {
        let written: Written = serde_json::from_slice(&body).map_err(|e| format!("{path}: {e}"))?;
        return Ok(Revision(written.metadata.resource_version.parse().unwrap_or_default()));
    }
    Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)))
}
