//! ConfigMaps and Secrets that pods of this node refer to: each watched by name, shared by its users, forgotten with
//! the last of them. A node may read only what its pods name, so there is no watch over a whole kind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use client::{Informer, Informers, Scope, Subscription, Watchable};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client};

/// How long a first look may take before the pod is told to try again.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// One object by name. It is read directly first and watched from then on: the node authorizer may learn of a new pod a
/// moment after the kubelet does and refuses until then, and a watch's back-off would be the pod's start time.
pub struct Watched<K: kube::Resource> {
    client: Client,
    informer: OnceLock<Informer<K>>,
    namespace: String,
    name: String,
}

impl<K: Watchable + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>> Watched<K> {
    /// The object. None: it does not exist.
    pub async fn get(&self) -> Result<Option<Arc<K>>, String> {
        if let Some(informer) = self.informer.get().filter(|i| i.has_synced()) {
            return Ok(informer.get(&self.namespace, &self.name));
        }
        tokio::time::timeout(SYNC_TIMEOUT, self.look()).await.map_err(|_| {
            let kind = K::kind(&K::DynamicType::default()).to_lowercase();
            format!("failed to sync {kind} cache: timed out waiting for the condition")
        })
    }

    /// Reads the object as soon as that is allowed, and starts its watch.
    async fn look(&self) -> Option<Arc<K>> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut pause = Duration::from_millis(5);
        loop {
            match api.get_opt(&self.name).await {
                Ok(found) => {
                    self.watch();
                    return found.map(Arc::new);
                }
                Err(error) => tracing::debug!(%error, name = self.name, "not readable yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn watch(&self) -> &Informer<K> {
        self.informer.get_or_init(|| {
            // An own set of informers each, so that the watch ends with its last user.
            let scope = Scope::namespace(&self.namespace).with_fields(&format!("metadata.name={}", self.name));
            Informers::new(self.client.clone()).of::<K>(scope)
        })
    }

    /// Its changes, from when it can be read.
    pub async fn subscribe(&self) -> Subscription<K> {
        if self.informer.get().is_none() {
            self.look().await;
        }
        self.watch().subscribe()
    }
}

/// The watches a pod holds.
pub type Held = (Vec<Arc<Watched<ConfigMap>>>, Vec<Arc<Watched<Secret>>>);

type Shelf<K> = Mutex<BTreeMap<(String, String), Weak<Watched<K>>>>;

pub struct Objects {
    client: Client,
    config_maps: Shelf<ConfigMap>,
    secrets: Shelf<Secret>,
}

fn watch<K: Watchable>(client: &Client, shelf: &Shelf<K>, namespace: &str, name: &str) -> Arc<Watched<K>> {
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (namespace.to_owned(), name.to_owned());
    if let Some(found) = shelf.get(&key).and_then(Weak::upgrade) {
        return found;
    }
    shelf.retain(|_, weak| weak.strong_count() > 0);
    let made = Arc::new(Watched { client: client.clone(), informer: OnceLock::new(), namespace: key.0.clone(), name: key.1.clone() });
    shelf.insert(key, Arc::downgrade(&made));
    made
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Objects { client, config_maps: Shelf::default(), secrets: Shelf::default() }
    }

    pub fn config_map(&self, namespace: &str, name: &str) -> Arc<Watched<ConfigMap>> {
        watch(&self.client, &self.config_maps, namespace, name)
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Arc<Watched<Secret>> {
        watch(&self.client, &self.secrets, namespace, name)
    }

    /// Everything a pod reads, held as long as the pod is here.
    pub fn of_pod(&self, pod: &Pod) -> Held {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (mut maps, mut secrets) = podsync::env::references(pod);
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            maps.extend(volume.config_map.as_ref().map(|c| c.name.clone()));
            secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
                maps.extend(source.config_map.as_ref().map(|c| c.name.clone()));
                secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
            }
        }
        for list in [&mut maps, &mut secrets] {
            list.retain(|n| !n.is_empty());
            list.sort();
            list.dedup();
        }
        (maps.iter().map(|n| self.config_map(namespace, n)).collect(), secrets.iter().map(|n| self.secret(namespace, n)).collect())
    }
}
