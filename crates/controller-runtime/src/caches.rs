//! The informers behind the controllers' [`View`], and waiting until they show what was written.

use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers, Scope};
use controllers::{Key, Lister, View, Watch, index, k8s};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::Resource as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::execute::Written;

/// How long an informer may lag behind a write before it lists afresh.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);

struct Cache<K>(Informer<K>);

impl<K> Lister<K> for Cache<K>
where
    K: kube::Resource + k8s_openapi::Metadata<Ty = ObjectMeta> + Send + Sync + 'static,
{
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.0.get(namespace, name)
    }
    fn list(&self) -> Vec<Arc<K>> {
        self.0.list()
    }
    fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.list_namespace(namespace)
    }
    fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.0.controlled_by(uid)
    }
    fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.orphans(namespace)
    }
    fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.0.by_index(index, value)
    }
    fn revision(&self) -> u64 {
        self.0.revision()
    }
}

macro_rules! scope {
    (all) => {
        Scope::all()
    };
    ((name $name:literal)) => {
        Scope::all().with_fields(concat!("metadata.name=", $name))
    };
    ((namespace $namespace:literal)) => {
        Scope::namespace($namespace)
    };
    ((one $namespace:literal $name:literal)) => {
        Scope::namespace($namespace).with_fields(concat!("metadata.name=", $name))
    };
    ((but $fields:literal)) => {
        Scope::all().with_fields($fields)
    };
}

/// Whether an object that was written is one of a scope's, as far as its name tells.
macro_rules! covers {
    ($written:ident (name $name:literal)) => {
        $written.name == $name
    };
    ($written:ident (namespace $namespace:literal)) => {
        $written.namespace == $namespace
    };
    ($written:ident (one $namespace:literal $name:literal)) => {
        $written.namespace == $namespace && $written.name == $name
    };
    ($written:ident $all:tt) => {
        true
    };
}

macro_rules! caches {
    ($($field:ident $variant:ident $kind:ident $scope:tt,)*) => {
        /// One informer per kind of the controllers' list.
        pub struct Caches {
            $($field: Cache<k8s::$kind>,)*
        }

        impl Caches {
            pub fn new(informers: &Informers) -> Self {
                let caches = Self { $($field: Cache(informers.of(scope!($scope))),)* };
                caches.add_indexes();
                caches
            }

            pub fn view(&self) -> View<'_> {
                View { $($field: &self.$field,)* }
            }

            /// Waits until every informer has its first list.
            pub async fn synced(&self) -> client::Result<()> {
                $(self.$field.0.synced().await?;)*
                Ok(())
            }

            /// The keys that changes lead to, as they come.
            pub(crate) fn watch(self: &Arc<Self>, watch: Watch) -> BoxStream<'static, Vec<Key>> {
                match watch {
                    $(Watch::$variant(keys) => {
                        let caches = self.clone();
                        let changes = self.$field.0.subscribe();
                        changes.map(move |change| {
                            let view = caches.view();
                            change.old.iter().chain(&change.new).flat_map(|object| keys(&view, object)).collect()
                        }).boxed()
                    })*
                }
            }

            /// Waits until the cache shows a write; kinds that are not cached need no wait.
            async fn show(&self, written: &Written) -> client::Result<()> {
                $(if written.kind == k8s::$kind::KIND && written.api_version == k8s::$kind::API_VERSION && covers!(written $scope) {
                    return show(&self.$field.0, written).await;
                })*
                Ok(())
            }
        }
    };
}
controllers::for_each_kind!(caches);

impl Caches {
    fn add_indexes(&self) {
        self.pods.0.add_index(index::NODE_NAME, |pod| vec![controllers::pods::node_name(pod).to_owned()]);
        self.endpoint_slices.0.add_index(index::SERVICE_NAME, |slice| {
            let service = controllers::meta::label(slice, index::SERVICE_NAME);
            service.map(|name| format!("{}/{name}", controllers::meta::namespace(slice))).into_iter().collect()
        });
    }

    /// Waits until the caches show all writes.
    pub(crate) async fn settle(&self, written: &[Written]) -> client::Result<()> {
        for one in written {
            self.show(one).await?;
        }
        Ok(())
    }
}

async fn show<K>(informer: &Informer<K>, written: &Written) -> client::Result<()>
where
    K: kube::Resource + Send + Sync + 'static,
{
    if written.ambiguous {
        return informer.refresh().await;
    }
    let shown = async {
        informer.wait_for_revision(written.revision).await?;
        let Some(uid) = &written.deleted_uid else { return Ok(()) };
        let lives = |informer: &Informer<K>| {
            let object = informer.get(&written.namespace, &written.name);
            object.is_some_and(|object| object.meta().uid.as_ref() == Some(uid) && object.meta().deletion_timestamp.is_none())
        };
        informer.wait_until(|informer| !lives(informer)).await
    };
    match tokio::time::timeout(ECHO_TIMEOUT, shown.boxed()).await {
        Ok(shown) => shown,
        Err(_) => {
            tracing::warn!(kind = written.kind, name = written.name, "a write is not visible yet; listing afresh");
            informer.refresh().await
        }
    }
}
