//! The watches the scheduler lives on, merged into one stream of events. It keeps nothing itself.

use client::{Change, Client, Informers, Scope, Subscription, Watchable};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::api::{Api, ListParams};

use crate::Event;

/// A watch on a kind; `None` where the API server does not serve it.
struct Input<K>(Option<Subscription<K>>);

impl<K: Watchable> Input<K> {
    async fn open(client: &Client, informers: &Informers, optional: bool) -> client::Result<Self> {
        if optional && is_absent::<K>(client).await {
            tracing::info!(kind = %K::kind(&K::DynamicType::default()), "not served here: scheduling without it");
            return Ok(Self(None));
        }
        let informer = informers.of::<K>(Scope::all());
        informer.synced().await?;
        Ok(Self(Some(informer.subscribe())))
    }

    fn try_next(&mut self) -> Option<Change<K>> {
        self.0.as_mut()?.try_next()
    }

    async fn next(&mut self) -> Change<K> {
        match &mut self.0 {
            Some(subscription) => subscription.next().await,
            None => std::future::pending().await,
        }
    }
}

/// Any other failure is the informer's to retry.
async fn is_absent<K: Watchable>(client: &Client) -> bool {
    let api: Api<K> = Api::all(client.clone());
    matches!(api.list_metadata(&ListParams::default().limit(1)).await, Err(kube::Error::Api(status)) if status.code == 404)
}

macro_rules! inputs {
    ($($field:ident: $kind:ty => $event:ident, $optional:literal;)*) => {
        /// One field per kind. What pods refer to comes before pods, so that they find it.
        pub struct Inputs {
            $($field: Input<$kind>,)*
        }

        impl Inputs {
            /// Waits for the first list of every kind.
            pub async fn open(client: &Client, informers: &Informers) -> client::Result<Self> {
                let ($($field,)*) = tokio::try_join!($(Input::open(client, informers, $optional),)*)?;
                Ok(Self { $($field,)* })
            }

            pub fn try_next(&mut self) -> Option<Event> {
                $(if let Some(change) = self.$field.try_next() {
                    return Some(Event::$event(change));
                })*
                None
            }

            pub async fn next(&mut self) -> Event {
                tokio::select! {
                    biased;
                    $(change = self.$field.next() => Event::$event(change),)*
                }
            }
        }
    };
}

inputs! {
    nodes: Node => Node, false;
    namespaces: Namespace => Namespace, false;
    services: Service => Service, false;
    replica_sets: ReplicaSet => ReplicaSet, true;
    stateful_sets: StatefulSet => StatefulSet, true;
    replication_controllers: ReplicationController => ReplicationController, true;
    budgets: PodDisruptionBudget => Budget, true;
    storage_classes: StorageClass => StorageClass, true;
    csi_nodes: CSINode => CsiNode, true;
    csi_drivers: CSIDriver => CsiDriver, true;
    capacities: CSIStorageCapacity => Capacity, true;
    volumes: PersistentVolume => Volume, true;
    volume_claims: PersistentVolumeClaim => VolumeClaim, true;
    device_classes: DeviceClass => DeviceClass, true;
    slices: ResourceSlice => Slice, true;
    claims: ResourceClaim => Claim, true;
    pods: Pod => Pod, false;
}
