//! Shared informers: per process one decoded copy of each object, kept current by one list and watch per kind and scope.
//!
//! [`Informers`] hands out the same [`Informer`] to everyone who asks for the same kind and scope. Reads are snapshots
//! of `Arc`s; changes come through [`Subscription`]s, which coalesce per object and never lose the last state.

mod state;
mod subscription;
mod watch;

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::Instrument;

pub use state::index_name;
pub use subscription::{Change, Subscription};

use crate::Result;
use crate::time::Entropy;
use state::Shared;

/// What an informer can hold: any typed resource, also one that decodes only part of its objects.
pub trait Watchable:
    Resource<DynamicType: Default + Clone + Send + Sync> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}
impl<K> Watchable for K where
    K: Resource<DynamicType: Default + Clone + Send + Sync> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

/// Names an object of one kind. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Which objects of a kind to hold. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    pub namespace: Option<String>,
    pub fields: Option<String>,
}

impl Scope {
    pub fn all() -> Self {
        Self::default()
    }

    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::default() }
    }

    /// Further narrowed by a field selector, such as `spec.nodeName=n1`.
    pub fn with_fields(mut self, fields: &str) -> Self {
        self.fields = Some(fields.to_owned());
        self
    }
}

/// Who may have many; cheap to clone. The watches end when the last clone and the last informer are gone.
#[derive(Clone)]
pub struct Informers(Arc<Inner>);

struct Inner {
    client: Client,
    entropy: Entropy,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    informers: BTreeMap<(TypeId, String, Scope), Arc<dyn Any + Send + Sync>>,
    tasks: JoinSet<()>,
}

impl Informers {
    pub fn new(client: Client) -> Self {
        Self::with_entropy(client, Entropy::from_system())
    }

    /// Jitter comes from `entropy`, so that a simulation replays.
    pub fn with_entropy(client: Client, entropy: Entropy) -> Self {
        Self(Arc::new(Inner { client, entropy, running: Mutex::default() }))
    }

    /// The informer of a kind and scope; the first call starts its watch, so it must be within a tokio runtime.
    pub fn of<K: Watchable>(&self, scope: Scope) -> Informer<K> {
        self.of_dynamic(&K::DynamicType::default(), scope)
    }

    /// As [`Informers::of`] for kinds known only at run time, such as `PartialObjectMeta<DynamicObject>`.
    pub fn of_dynamic<K>(&self, kind: &K::DynamicType, scope: Scope) -> Informer<K>
    where
        K: Resource<DynamicType: Clone + Send + Sync> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        let id = (TypeId::of::<K>(), K::url_path(kind, None), scope.clone());
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = running.informers.get(&id).cloned().and_then(|any| any.downcast::<Shared<K>>().ok()) {
            return Informer { shared, _running: self.0.clone() };
        }
        let shared = Arc::new(Shared::new(id.1.clone()));
        let api = watch_api::<K>(&self.0.client, kind, &scope);
        let span = tracing::info_span!("informer", path = %id.1);
        let task = watch::run(api, scope, shared.clone(), self.0.entropy.clone()).instrument(span);
        running.tasks.spawn(task);
        running.informers.insert(id, shared.clone());
        Informer { shared, _running: self.0.clone() }
    }
}

/// An `Api` for one kind; a namespace narrows its path.
fn watch_api<K: Resource<DynamicType: Clone>>(client: &Client, kind: &K::DynamicType, scope: &Scope) -> watch::Source<K> {
    watch::Source { client: client.clone(), path: K::url_path(kind, scope.namespace.as_deref()), _kind: std::marker::PhantomData }
}

impl Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Informers")
    }
}

/// One kind's objects as this process last heard of them; cheap to clone.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
    _running: Arc<Inner>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), _running: self._running.clone() }
    }
}

impl<K> Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Informer({})", self.shared.path)
    }
}

impl<K: Resource + Send + Sync + 'static> Informer<K> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.read(|state| state.objects.get(&ObjectKey::new(namespace, name)).cloned())
    }

    /// All objects in order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read(|state| state.objects.values().cloned().collect())
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.read(|state| state.in_namespace(namespace))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.read(|state| state.objects.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects whose controller (the owner reference with `controller: true`) has this UID.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.shared.read(|state| state.by_index(index_name::CONTROLLER, uid))
    }

    /// Objects of a namespace that no controller owns.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared.read(|state| state.by_index(index_name::ORPHAN, namespace))
    }

    /// Adds an index; objects appear in it under each value that `values` returns for them. Adding a name again changes nothing.
    pub fn add_index(&self, name: &'static str, values: fn(&K) -> Vec<String>) {
        self.shared.write(|state| state.add_index(name, values));
    }

    /// Adds an index under the values of a label; read it with [`Informer::by_index`] under the label's key.
    pub fn add_label_index(&self, label: &'static str) {
        self.shared.write(|state| state.add_label_index(label));
    }

    /// Objects under a value of an index that was added; none where there is no such index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.shared.read(|state| state.by_index(name, value))
    }

    /// All changes from now on, first of all every object there is. Coalesced per object; see [`Subscription`].
    pub fn subscribe(&self) -> Subscription<K> {
        self.shared.subscribe()
    }

    /// The newest revision whose changes are all visible here; 0 before the first list.
    pub fn revision(&self) -> u64 {
        self.shared.progress.get().revision
    }

    pub fn has_synced(&self) -> bool {
        self.shared.progress.get().synced
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) -> Result<()> {
        self.shared.progress.wait_for(|progress| progress.synced).await;
        Ok(())
    }

    /// Waits until a write of one of this informer's objects, which answered this revision, is visible here.
    pub async fn wait_for_revision(&self, revision: u64) -> Result<()> {
        self.shared.progress.wait_for(|progress| progress.synced && progress.revision >= revision).await;
        Ok(())
    }

    /// Waits until the objects satisfy a condition.
    pub async fn wait_until(&self, mut satisfied: impl FnMut(&Self) -> bool) -> Result<()> {
        self.shared.progress.wait_for(|_| satisfied(self)).await;
        Ok(())
    }

    /// Lists afresh and returns when that list is visible: for when the outcome of a write is not known.
    pub async fn refresh(&self) -> Result<()> {
        let wanted = self.shared.request_list();
        self.shared.progress.wait_for(|progress| progress.lists >= wanted).await;
        Ok(())
    }
}

/// Wakes the watch task to list again.
#[derive(Debug, Default)]
pub(crate) struct ListRequest(Notify);

impl ListRequest {
    fn ask(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn asked(&self) {
        self.0.notified().await;
    }
}
