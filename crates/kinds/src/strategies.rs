//! The strategies of the built-in kinds, and the table that finds them. One file per kind or family.

mod apps;
mod batch;
mod config;
mod endpoints;
pub mod pod;
mod pod_defaults;
mod service;
mod stateful_set;
pub mod workload;

use std::sync::Arc;

use crate::strategy::{Plain, Strategy};

/// The strategy of a resource; [`Plain`] for kinds without rules.
pub fn strategy_for(group: &str, resource: &str) -> Arc<dyn Strategy> {
    match (group, resource) {
        ("", "pods") => Arc::new(pod::Pods),
        ("", "configmaps") => Arc::new(config::ConfigMaps),
        ("", "endpoints") => Arc::new(endpoints::Endpoints),
        ("", "namespaces") => Arc::new(config::Namespaces),
        ("", "podtemplates") => Arc::new(apps::PodTemplates),
        ("", "replicationcontrollers") => Arc::new(apps::ReplicationControllers),
        ("", "secrets") => Arc::new(config::Secrets),
        ("", "serviceaccounts") => Arc::new(config::ServiceAccounts),
        ("", "services") => Arc::new(service::Services),
        ("apps", "controllerrevisions") => Arc::new(apps::ControllerRevisions),
        ("apps", "daemonsets") => Arc::new(apps::DaemonSets),
        ("apps", "deployments") => Arc::new(apps::Deployments),
        ("apps", "replicasets") => Arc::new(apps::ReplicaSets),
        ("apps", "statefulsets") => Arc::new(apps::StatefulSets),
        ("batch", "cronjobs") => Arc::new(batch::CronJobs),
        ("batch", "jobs") => Arc::new(batch::Jobs),
        ("discovery.k8s.io", "endpointslices") => Arc::new(endpoints::EndpointSlices),
        _ => Arc::new(Plain),
    }
}
