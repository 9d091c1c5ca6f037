//! Events of storage and of devices: kept in the cluster, and told to the queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Change;
use k8s_openapi::api::core::v1::Pod;
use scheduling::plugins::Wake;
use scheduling::storage::Volume;

use super::State;
use super::assume::extended_key;
use crate::Event;

fn put<K, V>(map: &mut BTreeMap<String, V>, change: Change<K>, make: impl Fn(Arc<K>) -> V) {
    let key = change.key.to_string();
    match change.new {
        Some(object) => map.insert(key, make(object)),
        None => map.remove(&key),
    };
}

impl State {
    pub(super) fn storage(&mut self, event: Event) {
        let storage = Arc::make_mut(&mut self.cluster.storage);
        match event {
            Event::StorageClass(change) => put(&mut storage.classes, change, |o| o),
            Event::CsiNode(change) => put(&mut storage.csi_nodes, change, |o| o),
            Event::CsiDriver(change) => put(&mut storage.csi_drivers, change, |o| o),
            Event::Capacity(change) => put(&mut storage.capacities, change, |o| o),
            Event::Volume(change) => put(&mut storage.volumes, change, Volume::new),
            Event::VolumeClaim(change) => put(&mut storage.claims, change, |o| o),
            _ => return,
        }
        self.settle();
        let now = self.now();
        self.queue.wake(Wake::Storage, now);
    }

    pub(super) fn devices(&mut self, event: Event) {
        let now = self.now();
        let devices = Arc::make_mut(&mut self.cluster.devices);
        match event {
            Event::DeviceClass(change) => put(&mut devices.classes, change, |o| o),
            Event::Slice(change) => put(&mut devices.slices, change, |o| o),
            Event::Claim(change) => {
                // What was assumed has been written.
                if let Some(claim) = change.new.as_ref().filter(|c| c.status.as_ref().is_some_and(|s| s.allocation.is_some())) {
                    devices.assumed.remove(&change.key.to_string());
                    for owner in claim.metadata.owner_references.iter().flatten() {
                        devices.assumed.remove(&extended_key(&owner.uid));
                    }
                }
                put(&mut devices.claims, change, |o| o);
                let held: Vec<(String, Arc<Pod>)> = self.held.iter().map(|(k, p)| (k.clone(), p.clone())).collect();
                for (key, pod) in held {
                    self.pending(key, &pod, now);
                }
            }
            _ => return,
        }
        self.queue.wake(Wake::Devices, now);
    }
}
