//! The garbage collector's shell: watches the metadata of every kind, keeps who depends on whom, and asks the API server
//! itself about owners before anything is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Change, Informer, Informers, ObjectKey, Scope};
use controllers::Target;
use controllers::garbage_collector::{self, Item, Owner};
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::DynamicObject;
use kube::discovery::{ApiResource, Scope as KindScope};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::execute::{Executor, Stop};
use crate::meter::queue_name;
use crate::namespaces::{Tags, discover};
use crate::queue::Queue;
use crate::trimmed::Trimmed;

pub const NAME: &str = garbage_collector::NAME;

/// How often new kinds are looked for, as upstream.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

/// Deletions that may wait to be heard of; who hears of fewer counts everything again.
const FEWER_MAX: usize = 256;

const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

/// How long nothing is decided while some kind has yet to be listed: who depends on whom is not known. A kind that cannot be
/// listed at all must not stop the rest for good.
const LISTING_TIME_MAX: Duration = Duration::from_secs(60);

type Meta = Trimmed;

/// An object of any kind: the path of its collection, and its key.
type Node = (Arc<str>, ObjectKey);

struct Kind {
    resource: ApiResource,
    namespaced: bool,
    informer: Informer<Meta>,
    /// When it was found.
    since: Instant,
}

/// The collector watches every kind, so it can also tell how many objects of each there are.
pub struct Counts {
    informers: Mutex<BTreeMap<String, Informer<Meta>>>,
    /// Namespaces in which something is gone.
    fewer: broadcast::Sender<Arc<str>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { informers: Mutex::default(), fewer: broadcast::Sender::new(FEWER_MAX) }
    }
}

impl Counts {
    /// Tells the namespaces in which there are fewer objects of some kind from now on.
    pub fn fewer(&self) -> broadcast::Receiver<Arc<str>> {
        self.fewer.subscribe()
    }
}

impl controllers::Counts for Counts {
    fn count(&self, namespace: &str, resource: &str) -> Option<usize> {
        let informers = self.informers.lock().unwrap_or_else(PoisonError::into_inner);
        Some(informers.get(resource)?.list_namespace(namespace).len())
    }
}

/// What is known of all objects.
struct Graph {
    counts: Arc<Counts>,
    kinds: BTreeMap<Arc<str>, Kind>,
    /// Where a UID is.
    nodes: BTreeMap<String, Node>,
    /// By the UID of the owner.
    dependents: BTreeMap<String, BTreeSet<Node>>,
    /// UIDs of what is being deleted.
    going: BTreeSet<String>,
    tags: Tags,
}

type Changes = SelectAll<BoxStream<'static, (Arc<str>, Change<Meta>)>>;

pub async fn run(informers: Informers, executor: Executor, config: Arc<Config>, counts: Arc<Counts>, cancel: CancellationToken) {
    let mut graph = Graph::new(counts);
    let mut changes: Changes = SelectAll::new();
    let mut queue: Queue<Node> = Queue::metered(queue_name(NAME), config.metrics.as_ref());
    let mut passes: JoinSet<(Node, Result<bool, Stop>)> = JoinSet::new();
    let mut look_for_kinds = Instant::now();
    let workers = config.workers.max(1);
    loop {
        // Whatever is known is taken in before anything is decided: an owner is heard of before its dependents are, or after.
        while let Some(Some((path, change))) = tokio::task::unconstrained(changes.next()).now_or_never() {
            graph.note(&path, change, &mut queue);
        }
        while passes.len() < workers
            && graph.is_complete()
            && let Some(node) = queue.start(Instant::now())
        {
            match graph.case(&node) {
                Some(case) => drop(passes.spawn(decide(executor.clone(), node, case))),
                None => queue.finish(node, false, None, Instant::now()),
            }
        }
        let look_again = if graph.is_complete() { look_for_kinds } else { Instant::now() + DISCOVERY_RETRY };
        let due = queue.next_due().unwrap_or(look_again).min(look_again).min(look_for_kinds);
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            Some(ended) = passes.join_next() => match ended {
                Ok((node, result)) => {
                    let failed = !matches!(result, Ok(_) | Err(Stop::Pointless));
                    if let Err(stop) = &result {
                        tracing::debug!(path = %node.0, key = %node.1, ?stop, "not collected yet");
                    }
                    queue.finish(node, failed, None, Instant::now());
                }
                Err(error) => tracing::error!(%error, "a pass of the garbage collector panicked"),
            },
            Some((path, change)) = changes.next() => graph.note(&path, change, &mut queue),
            () = tokio::time::sleep_until(due), if passes.len() < workers || due >= look_for_kinds => {
                if Instant::now() >= look_for_kinds {
                    let found = graph.look_for_kinds(&informers, &executor, &mut changes).await;
                    look_for_kinds = Instant::now() + if found { DISCOVERY_PERIOD } else { DISCOVERY_RETRY };
                }
            }
        }
    }
    passes.shutdown().await;
}

impl Graph {
    fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            kinds: BTreeMap::new(),
            nodes: BTreeMap::new(),
            dependents: BTreeMap::new(),
            going: BTreeSet::new(),
            tags: Tags::default(),
        }
    }

    async fn look_for_kinds(&mut self, informers: &Informers, executor: &Executor, changes: &mut Changes) -> bool {
        if !self.tags.changed(executor.client()).await {
            return true;
        }
        let found = match discover(executor.client(), &["delete", "list", "watch"]).await {
            Ok(found) => found,
            Err(error) => {
                self.tags.forget();
                tracing::warn!(%error, "cannot look for kinds to collect");
                return false;
            }
        };
        let mut new = Vec::new();
        for (resource, scope) in found {
            // Events are many, expire by themselves and own nothing; upstream leaves them out too.
            if resource.kind == "Event" {
                continue;
            }
            let path: Arc<str> = <DynamicObject as kube::Resource>::url_path(&resource, None).into();
            if self.kinds.contains_key(&path) {
                continue;
            }
            let informer = informers.of_dynamic::<Meta>(&resource, Scope::all());
            let name = if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) };
            new.push((path.clone(), name, informer.clone()));
            let since = Instant::now();
            self.kinds.insert(path, Kind { resource, namespaced: scope == KindScope::Namespaced, informer, since });
        }
        for (path, name, informer) in new {
            // A kind that cannot be listed must not stop the rest.
            match tokio::time::timeout(Duration::from_secs(10), informer.synced()).await {
                Ok(Ok(())) => drop(self.counts.informers.lock().unwrap_or_else(PoisonError::into_inner).insert(name, informer.clone())),
                Ok(Err(error)) => tracing::warn!(%error, %path, "no informer"),
                Err(_) => tracing::warn!(%path, "cannot be listed yet"),
            }
            changes.push(informer.subscribe().map(move |change| (path.clone(), change)).boxed());
        }
        true
    }

    /// Whether every kind is listed, as far as it can be.
    fn is_complete(&self) -> bool {
        !self.kinds.is_empty() && self.kinds.values().all(|kind| kind.informer.has_synced() || kind.since.elapsed() > LISTING_TIME_MAX)
    }

    fn note(&mut self, path: &Arc<str>, change: Change<Meta>, queue: &mut Queue<Node>) {
        let node = (path.clone(), change.key.clone());
        for owner in change.old.iter().flat_map(|old| owners(&old.metadata)) {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&node);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            // An owner that waits for its dependents has one less.
            if let Some(owner) = self.nodes.get(&owner.uid) {
                queue.add(owner.clone());
            }
        }
        if change.new.is_none() && !change.key.namespace.is_empty() && self.counts.fewer.receiver_count() > 0 {
            // Somebody may have gone meanwhile, which is all that can fail.
            drop(self.counts.fewer.send(change.key.namespace.clone()));
        }
        let (old_uid, new_uid) = (uid_of(change.old.as_deref()), uid_of(change.new.as_deref()));
        if let Some(uid) = old_uid.filter(|uid| new_uid != Some(*uid)) {
            self.nodes.remove(uid);
            self.going.remove(uid);
            for dependent in self.dependents.get(uid).into_iter().flatten() {
                queue.add(dependent.clone());
            }
        }
        let Some(new) = &change.new else { return };
        if let Some(uid) = new_uid {
            self.nodes.insert(uid.to_owned(), node.clone());
        }
        for owner in owners(&new.metadata) {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.clone());
        }
        if let Some(uid) = new_uid.filter(|_| new.metadata.deletion_timestamp.is_some()) {
            self.going.insert(uid.to_owned());
        }
        // One that is heard of after its owner, which may wait for it.
        let missing_owner =
            owners(&new.metadata).iter().any(|owner| !self.nodes.contains_key(&owner.uid) || self.going.contains(&owner.uid));
        if new.metadata.deletion_timestamp.is_some() {
            queue.add(node);
            for dependent in new_uid.and_then(|uid| self.dependents.get(uid)).into_iter().flatten() {
                queue.add(dependent.clone());
            }
        } else if missing_owner {
            queue.add(node);
        }
    }

    fn item(&self, node: &Node) -> Option<Item> {
        let kind = self.kinds.get(&node.0)?;
        let meta = kind.informer.get(&node.1.namespace, &node.1.name)?.metadata.clone();
        let resource = &kind.resource;
        let target = Target {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
            namespace: node.1.namespace.to_string(),
            name: node.1.name.to_string(),
        };
        Some(Item { target, meta })
    }

    /// What a decision needs: the item, its dependents, and where its owners should be.
    fn case(&self, node: &Node) -> Option<Case> {
        let item = self.item(node)?;
        let uid = item.meta.uid.as_deref().unwrap_or_default();
        let dependents = self.dependents.get(uid).into_iter().flatten().filter_map(|node| self.item(node)).collect();
        let owners = owners(&item.meta).iter().map(|owner| self.owner_target(owner, &item)).collect();
        Some(Case { item, dependents, owners })
    }

    fn owner_target(&self, owner: &OwnerReference, item: &Item) -> Option<Target> {
        let kind = self.kinds.values().find(|kind| kind.resource.kind == owner.kind && kind.resource.api_version == owner.api_version)?;
        Some(Target {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            plural: kind.resource.plural.clone(),
            namespace: if kind.namespaced { item.target.namespace.clone() } else { String::new() },
            name: owner.name.clone(),
        })
    }
}

struct Case {
    item: Item,
    dependents: Vec<Item>,
    /// `None`: of a kind that is not known.
    owners: Vec<Option<Target>>,
}

/// Asks about the owners and does what follows; whether it did anything.
async fn decide(executor: Executor, node: Node, case: Case) -> (Node, Result<bool, Stop>) {
    let mut states = Vec::new();
    for (target, owner) in case.owners.iter().zip(owners(&case.item.meta)) {
        match owner_state(&executor, target.as_ref(), owner).await {
            Ok(state) => states.push(state),
            Err(stop) => return (node, Err(stop)),
        }
    }
    let actions = garbage_collector::reconcile(&case.item, &states, &case.dependents);
    let (_, result) = executor.execute_all(&actions).await;
    (node, result.map(|()| !actions.is_empty()))
}

async fn owner_state(executor: &Executor, target: Option<&Target>, owner: &OwnerReference) -> Result<Owner, Stop> {
    // A kind that cannot be seen may come back, so what it owns stays.
    let Some(target) = target else { return Ok(Owner::Solid) };
    let live = executor.get(target).await.map_err(|error| Stop::Unreachable(error.to_string()))?;
    let Some(live) = live.filter(|live| live["metadata"]["uid"] == owner.uid.as_str()) else { return Ok(Owner::Absent) };
    let waits = live["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == garbage_collector::FOREGROUND));
    let deleting = !live["metadata"]["deletionTimestamp"].is_null();
    Ok(if waits && deleting { Owner::WaitsForDependents } else { Owner::Solid })
}

fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

fn uid_of(object: Option<&Meta>) -> Option<&str> {
    object.and_then(|object| object.metadata.uid.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(name: &str, meta: serde_json::Value) -> Change<Meta> {
        let mut object =
            json!({"apiVersion": "v1", "kind": "X", "metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}")}});
        for (field, value) in meta.as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        Change { key: ObjectKey::new("n", name), old: None, new: Some(Arc::new(serde_json::from_value(object).unwrap())) }
    }

    /// After a restart kinds are heard of in any order: whichever comes last brings the dependent to the collector.
    #[tokio::test]
    async fn a_dependent_of_an_owner_that_waits_is_looked_at_whichever_is_heard_of_first() {
        let owner = || change("owner", json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}));
        let reference = json!([{"apiVersion": "v1", "kind": "X", "name": "owner", "uid": "uid-owner", "blockOwnerDeletion": true}]);
        let dependent = || change("dependent", json!({ "ownerReferences": reference }));
        let path: Arc<str> = "/api/v1/xs".into();
        for order in [[owner(), dependent()], [dependent(), owner()]] {
            let (mut graph, mut queue) = (Graph::new(Arc::default()), Queue::new());
            order.into_iter().for_each(|change| graph.note(&path, change, &mut queue));
            let mut queued = BTreeSet::new();
            while let Some(node) = queue.start(Instant::now()) {
                queued.insert(node.1.name.to_string());
            }
            assert_eq!(queued, BTreeSet::from(["dependent".to_owned(), "owner".to_owned()]));
        }
        assert!(!Graph::new(Arc::default()).is_complete(), "nothing is decided before any kind is listed");
    }
}
