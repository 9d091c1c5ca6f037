//! The shared informers as `netplan::dns` sees them.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Informer, Informers, Scope};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netplan::dns::{View, cluster_ips};

const BY_CLUSTER_IP: &str = "network.dns/cluster-ip";
const BY_SERVICE: &str = "network.dns/service";
const BY_ADDRESS: &str = "network.dns/address";

#[derive(Debug)]
pub(super) struct Objects {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
}

impl Objects {
    pub(super) fn new(informers: &Informers) -> Self {
        let services = informers.of::<Service>(Scope::all());
        services.add_index(BY_CLUSTER_IP, |s| cluster_ips(s).map(|ip| ip.to_string()).collect());
        let slices = informers.of::<EndpointSlice>(Scope::all());
        slices.add_index(BY_SERVICE, |slice| {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            service.map(|name| key(slice.metadata.namespace.as_deref().unwrap_or_default(), name)).into_iter().collect()
        });
        slices.add_index(BY_ADDRESS, |slice| {
            let addresses = slice.endpoints.iter().flatten().flat_map(|e| &e.addresses);
            addresses.filter_map(|a| Some(a.parse::<IpAddr>().ok()?.to_string())).collect()
        });
        Objects { services, slices, namespaces: informers.of(Scope::all()) }
    }

    pub(super) fn have_synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl View for Objects {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &key(namespace, service))
    }

    fn service_with_ip(&self, ip: IpAddr) -> Option<Arc<Service>> {
        self.services.by_index(BY_CLUSTER_IP, &ip.to_string()).into_iter().next()
    }

    fn slices_with_ip(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &ip.to_string())
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some()
    }
}
