//! The shell of namespace deletion: deletes everything of every kind in a terminating namespace, pods first, and
//! finalises it when nothing is left.

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use controllers::namespace::{self, Remains};
use controllers::{Action, Key, Watch};
use futures::StreamExt;
use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use k8s_openapi::api::core::v1::Namespace;
use kube::client::Body;
use kube::core::params::{DeleteParams, ListParams};
use kube::core::{DynamicObject, ObjectList, PartialObjectMeta, Request};
use kube::discovery::{ApiResource, Discovery, Scope};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::caches::Caches;
use crate::execute::{Executor, Stop};
use crate::meter::queue_name;
use crate::queue::Queue;

pub const NAME: &str = namespace::NAME;

/// How soon to look again at what has not gone yet.
const AGAIN: Duration = Duration::from_secs(1);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// All kinds whose preferred version has these verbs.
pub async fn discover(client: &Client, verbs: &[&str]) -> kube::Result<Vec<(ApiResource, Scope)>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let all = discovery.groups().flat_map(|group| group.recommended_resources());
    let able = all.filter(|(_, capabilities)| verbs.iter().all(|verb| capabilities.supports_operation(verb)));
    let mut found: Vec<_> = able.map(|(resource, capabilities)| (resource, capabilities.scope)).collect();
    // Discovery keeps groups in a randomly seeded map.
    found.sort_by(|(a, _), (b, _)| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    Ok(found)
}

/// What discovery was tagged with when it was last looked at.
#[derive(Default)]
pub struct Tags(Option<[HeaderValue; 2]>);

impl Tags {
    /// Whether discovery says something else than when this was last asked. A `no` costs two empty answers; reading all kinds
    /// anew each half minute was most of what an idle control plane did.
    pub async fn changed(&mut self, client: &Client) -> bool {
        match self.ask(client).await {
            Ok(Some(tags)) => self.0.replace(tags.clone()) != Some(tags),
            // Servers that tag nothing or do not answer: whoever reads it will see.
            _ => {
                self.forget();
                true
            }
        }
    }

    /// What was last seen could not be made use of.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    async fn ask(&self, client: &Client) -> kube::Result<Option<[HeaderValue; 2]>> {
        let mut tags = Vec::new();
        for (n, path) in ["/api", "/apis"].into_iter().enumerate() {
            let mut request = http::Request::get(path).header(ACCEPT, AGGREGATED);
            if let Some(known) = &self.0 {
                request = request.header(IF_NONE_MATCH, known[n].clone());
            }
            let response = client.send(request.body(Body::empty()).map_err(kube::Error::HttpError)?).await?;
            let good = response.status().is_success() || response.status() == http::StatusCode::NOT_MODIFIED;
            tags.extend(response.headers().get(ETAG).filter(|_| good).cloned());
        }
        Ok(tags.try_into().ok())
    }
}

pub async fn run(caches: Arc<Caches>, executor: Executor, config: Arc<Config>, cancel: CancellationToken) {
    let mut changes = caches.watch(Watch::Namespaces(|_, namespace| vec![controllers::meta::key(namespace)]));
    let mut queue: Queue<Key> = Queue::metered(queue_name(NAME), config.metrics.as_ref());
    loop {
        while let Some(key) = queue.start(Instant::now()) {
            let result = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                result = empty(&caches, &executor, &config, &key) => result,
            };
            let (failed, again) = match result {
                Ok(done) => (false, (!done).then(|| Instant::now() + AGAIN)),
                Err(error) => {
                    tracing::warn!(%key, ?error, "the namespace could not be emptied");
                    (true, None)
                }
            };
            queue.finish(key, failed, again, Instant::now());
        }
        let due = queue.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            Some(keys) = changes.next() => keys.into_iter().for_each(|key| queue.add(key)),
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

/// One round; whether nothing is left to do.
async fn empty(caches: &Caches, executor: &Executor, config: &Config, key: &Key) -> Result<bool, Stop> {
    let Some(namespace) = caches.view().namespaces.get("", &key.name).filter(|namespace| namespace::must_be_emptied(namespace)) else {
        return Ok(true);
    };
    let remains = delete_content(executor.client(), &key.name).await;
    if let Some(conditions) = namespace::conditions(&namespace, &remains, config.clock.now()) {
        let patch = json!({"status": {"conditions": conditions}});
        let (written, result) = executor.execute_all(&[Action::update(&*namespace, patch).on_subresource("status")]).await;
        result?;
        if let Err(error) = caches.settle(&written).await {
            tracing::error!(%error, "cannot wait for the caches");
        }
        return Ok(false);
    }
    if !remains.is_empty() {
        return Ok(false);
    }
    finalize(executor.client(), &namespace).await.map_err(|error| Stop::Unreachable(error.to_string()))?;
    Ok(true)
}

/// Takes the `kubernetes` finalizer off, which only the `finalize` subresource can.
async fn finalize(client: &Client, namespace: &Namespace) -> kube::Result<()> {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != namespace::FINALIZER);
    }
    let name = controllers::meta::name(&namespace).to_owned();
    let body = serde_json::to_vec(&namespace).map_err(kube::Error::SerdeError)?;
    let path = <Namespace as kube::Resource>::url_path(&(), None);
    let request = Request::new(path).replace_subresource("finalize", &name, &kube::core::params::PostParams::default(), body);
    client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

/// Deletes all that can be deleted and counts what is left. Pods go first, so that what they use outlives them.
async fn delete_content(client: &Client, namespace: &str) -> Remains {
    let mut remains = Remains::default();
    let kinds = match discover(client, &["delete", "list"]).await {
        Ok(kinds) => kinds,
        Err(error) => {
            remains.discovery_error = Some(error.to_string());
            return remains;
        }
    };
    let mut kinds: Vec<ApiResource> = kinds.into_iter().filter(|(_, scope)| *scope == Scope::Namespaced).map(|(kind, _)| kind).collect();
    let is_pod = |kind: &ApiResource| kind.group.is_empty() && kind.kind == "Pod";
    kinds.sort_by_key(|kind| !is_pod(kind));
    for kind in &kinds {
        if let Err(error) = delete_kind(client, namespace, kind, &mut remains).await {
            remains.delete_errors.push(error.to_string());
        }
        if is_pod(kind) && !remains.objects.is_empty() {
            return remains;
        }
    }
    remains
}

async fn delete_kind(client: &Client, namespace: &str, kind: &ApiResource, remains: &mut Remains) -> kube::Result<()> {
    let path = <DynamicObject as kube::Resource>::url_path(kind, Some(namespace));
    if list(client, &path).await?.is_empty() {
        return Ok(());
    }
    let delete = Request::new(&path).delete_collection(&DeleteParams::background(), &ListParams::default());
    match client.request::<Value>(delete.map_err(kube::Error::BuildRequest)?).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
        Err(error) => return Err(error),
    }
    let left = list(client, &path).await?;
    if !left.is_empty() {
        remains.objects.insert(format!("{}.{}", kind.plural, kind.group), left.len());
    }
    for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

async fn list(client: &Client, path: &str) -> kube::Result<Vec<PartialObjectMeta<DynamicObject>>> {
    let request = Request::new(path).list(&ListParams::default()).map_err(kube::Error::BuildRequest)?;
    Ok(client.request::<ObjectList<PartialObjectMeta<DynamicObject>>>(request).await?.items)
}
