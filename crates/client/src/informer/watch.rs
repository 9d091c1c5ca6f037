//! The list and watch that feeds an informer: list in pages, watch from there with bookmarks, resume after a broken
//! connection, list again after 410 or on request. Never gives up; waits longer after each failure.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::WatchEvent;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ObjectList, Request};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::Scope;
use super::state::Shared;
use crate::time::{Backoff, Entropy};

/// Objects asked for at a time.
const PAGE_SIZE: u32 = 500;
/// The server ends a watch after this long; the longest that kube allows.
const WATCH_SECONDS: u32 = 290;
/// A watch that outlives its end by this much is dead.
const WATCH_GRACE: Duration = Duration::from_secs(15);
/// A watch that ends sooner than this is not resumed at once, lest a broken server be hammered.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// Where a kind is listed and watched.
pub(crate) struct Source<K> {
    pub client: Client,
    pub path: String,
    pub _kind: PhantomData<fn() -> K>,
}

/// Why a watch ended.
enum End {
    /// Go on from the last revision.
    Resume,
    /// The revision is too old, or someone wants a fresh list.
    List,
    /// Go on after a while.
    Failed(String),
}

pub(crate) async fn run<K>(source: Source<K>, scope: Scope, shared: Arc<Shared<K>>, entropy: Entropy)
where
    K: Resource + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let mut backoff = Backoff::new(entropy);
    loop {
        let answered = shared.lists_wanted();
        let mut version = match list(&source, &scope).await {
            Ok((items, version)) => {
                shared.replace(items, version.parse().unwrap_or(0), answered);
                version
            }
            Err(error) => {
                tracing::warn!(%error, "list failed");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        backoff.reset();
        loop {
            match watch(&source, &scope, &shared, &mut version, &mut backoff).await {
                End::Resume => {}
                End::List => break,
                End::Failed(error) => {
                    tracing::debug!(%error, "watch failed");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

async fn list<K>(source: &Source<K>, scope: &Scope) -> Result<(Vec<K>, String), kube::Error>
where
    K: Resource + DeserializeOwned + Clone + Debug,
{
    let mut params = ListParams { limit: Some(PAGE_SIZE), field_selector: scope.fields.clone(), ..ListParams::default() };
    let mut items = Vec::new();
    loop {
        let request = Request::new(&source.path).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: ObjectList<K> = source.client.request(request).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok((items, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

async fn watch<K>(source: &Source<K>, scope: &Scope, shared: &Shared<K>, version: &mut String, backoff: &mut Backoff) -> End
where
    K: Resource + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let params = WatchParams { field_selector: scope.fields.clone(), timeout: Some(WATCH_SECONDS), ..WatchParams::default() };
    let request = match Request::new(&source.path).watch(&params, version) {
        Ok(request) => request,
        Err(error) => return End::Failed(error.to_string()),
    };
    let events = match source.client.request_events::<K>(request).await {
        Ok(events) => events,
        Err(kube::Error::Api(status)) if status.code == 410 => return End::List,
        Err(error) => return End::Failed(error.to_string()),
    };
    let mut events = pin!(events);
    let started = tokio::time::Instant::now();
    let deadline = tokio::time::sleep(Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE);
    let mut deadline = pin!(deadline);
    loop {
        let event = tokio::select! {
            biased;
            () = shared.list_request.asked() => return End::List,
            event = events.next() => event,
            () = &mut deadline => return End::Failed("the server did not end the watch in time".to_owned()),
        };
        match event {
            None if started.elapsed() < SHORT_WATCH => return End::Failed("the server ended the watch at once".to_owned()),
            None => return End::Resume,
            Some(Err(error)) => return End::Failed(error.to_string()),
            Some(Ok(event)) => {
                if let Some(end) = handle(event, shared, version) {
                    return end;
                }
                backoff.reset();
            }
        }
    }
}

fn handle<K>(event: WatchEvent<K>, shared: &Shared<K>, version: &mut String) -> Option<End>
where
    K: Resource + Send + Sync + 'static,
{
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            remember(version, object.meta().resource_version.as_deref());
            shared.apply(object);
        }
        WatchEvent::Deleted(object) => {
            remember(version, object.meta().resource_version.as_deref());
            shared.delete(object);
        }
        WatchEvent::Bookmark(bookmark) => {
            shared.advance(bookmark.metadata.resource_version.parse().unwrap_or(0));
            remember(version, Some(&bookmark.metadata.resource_version));
        }
        WatchEvent::Error(status) if status.code == 410 => return Some(End::List),
        WatchEvent::Error(status) => return Some(End::Failed(status.message.clone())),
    }
    None
}

fn remember(version: &mut String, seen: Option<&str>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        version.clear();
        version.push_str(seen);
    }
}
