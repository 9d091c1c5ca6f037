//! The strategies of the built-in kinds, and the table that finds them. One file per kind or family.

mod admission_policies;
mod api;
mod apps;
mod batch;
mod certificates;
mod cluster;
mod config;
mod csi;
mod custom_resource_definition;
mod endpoints;
mod events;
mod flowcontrol;
mod horizontal_pod_autoscaler;
mod ingress;
mod network_policy;
mod node;
mod persistent_volume_claim;
pub mod pod;
mod pod_defaults;
mod pod_disruption_budget;
mod rbac;
mod resource_claim;
mod resource_slice;
mod service;
mod service_cidr;
mod stateful_set;
mod storage;
mod webhooks;
pub mod workload;

use std::sync::Arc;

use crate::strategy::{Plain, Strategy};

pub use resource_claim::asks_admin_access;

/// The strategy of a resource; [`Plain`] for kinds without rules.
pub fn strategy_for(group: &str, resource: &str) -> Arc<dyn Strategy> {
    match (group, resource) {
        ("", "pods") => Arc::new(pod::Pods),
        ("", "componentstatuses") => Arc::new(config::ComponentStatuses),
        ("", "configmaps") => Arc::new(config::ConfigMaps),
        ("", "endpoints") => Arc::new(endpoints::Endpoints),
        ("", "namespaces") => Arc::new(config::Namespaces),
        ("", "nodes") => Arc::new(node::Nodes),
        ("", "persistentvolumeclaims") => Arc::new(persistent_volume_claim::PersistentVolumeClaims),
        ("", "persistentvolumes") => Arc::new(storage::PersistentVolumes),
        ("", "podtemplates") => Arc::new(apps::PodTemplates),
        ("", "replicationcontrollers") => Arc::new(apps::ReplicationControllers),
        ("", "limitranges") => Arc::new(cluster::LimitRanges),
        ("", "resourcequotas") => Arc::new(cluster::ResourceQuotas),
        ("", "secrets") => Arc::new(config::Secrets),
        ("", "serviceaccounts") => Arc::new(config::ServiceAccounts),
        ("", "services") => Arc::new(service::Services),
        ("apps", "controllerrevisions") => Arc::new(apps::ControllerRevisions),
        ("apps", "daemonsets") => Arc::new(apps::DaemonSets),
        ("apps", "deployments") => Arc::new(apps::Deployments),
        ("apps", "replicasets") => Arc::new(apps::ReplicaSets),
        ("apps", "statefulsets") => Arc::new(apps::StatefulSets),
        ("autoscaling", "horizontalpodautoscalers") => Arc::new(horizontal_pod_autoscaler::HorizontalPodAutoscalers),
        ("batch", "cronjobs") => Arc::new(batch::CronJobs),
        ("batch", "jobs") => Arc::new(batch::Jobs),
        ("certificates.k8s.io", "certificatesigningrequests") => Arc::new(certificates::CertificateSigningRequests),
        ("coordination.k8s.io", "leases") => Arc::new(cluster::Leases),
        ("discovery.k8s.io", "endpointslices") => Arc::new(endpoints::EndpointSlices),
        ("networking.k8s.io", "ingressclasses") => Arc::new(ingress::IngressClasses),
        ("networking.k8s.io", "ingresses") => Arc::new(ingress::Ingresses),
        ("networking.k8s.io", "ipaddresses") => Arc::new(service_cidr::IpAddresses),
        ("networking.k8s.io", "networkpolicies") => Arc::new(network_policy::NetworkPolicies),
        ("networking.k8s.io", "servicecidrs") => Arc::new(service_cidr::ServiceCidrs),
        ("node.k8s.io", "runtimeclasses") => Arc::new(cluster::RuntimeClasses),
        ("policy", "poddisruptionbudgets") => Arc::new(pod_disruption_budget::PodDisruptionBudgets),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => Arc::new(rbac::Bindings { cluster: true }),
        ("rbac.authorization.k8s.io", "clusterroles") => Arc::new(rbac::Roles { cluster: true }),
        ("rbac.authorization.k8s.io", "rolebindings") => Arc::new(rbac::Bindings { cluster: false }),
        ("rbac.authorization.k8s.io", "roles") => Arc::new(rbac::Roles { cluster: false }),
        ("scheduling.k8s.io", "priorityclasses") => Arc::new(cluster::PriorityClasses),
        ("storage.k8s.io", "csidrivers") => Arc::new(csi::CsiDrivers),
        ("storage.k8s.io", "csinodes") => Arc::new(csi::CsiNodes),
        ("storage.k8s.io", "csistoragecapacities") => Arc::new(csi::CsiStorageCapacities),
        ("storage.k8s.io", "storageclasses") => Arc::new(storage::StorageClasses),
        ("storage.k8s.io", "volumeattachments") => Arc::new(csi::VolumeAttachments),
        ("storage.k8s.io", "volumeattributesclasses") => Arc::new(storage::VolumeAttributesClasses),
        ("apiextensions.k8s.io", "customresourcedefinitions") => Arc::new(custom_resource_definition::CustomResourceDefinitions),
        ("apiregistration.k8s.io", "apiservices") => Arc::new(api::ApiServices),
        ("" | "events.k8s.io", "events") => Arc::new(events::Events),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => Arc::new(webhooks::WebhookConfigurations { mutating: true }),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => {
            Arc::new(webhooks::WebhookConfigurations { mutating: false })
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => Arc::new(admission_policies::MutatingAdmissionPolicies),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => {
            Arc::new(admission_policies::PolicyBindings { mutating: true })
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => Arc::new(admission_policies::ValidatingAdmissionPolicies),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            Arc::new(admission_policies::PolicyBindings { mutating: false })
        }
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => Arc::new(flowcontrol::FlowSchemas),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => Arc::new(flowcontrol::PriorityLevelConfigurations),
        ("resource.k8s.io", "deviceclasses") => Arc::new(resource_claim::DeviceClasses),
        ("resource.k8s.io", "resourceclaims") => Arc::new(resource_claim::ResourceClaims),
        ("resource.k8s.io", "resourceclaimtemplates") => Arc::new(resource_claim::ResourceClaimTemplates),
        ("resource.k8s.io", "resourceslices") => Arc::new(resource_slice::ResourceSlices),
        _ => Arc::new(Plain),
    }
}
