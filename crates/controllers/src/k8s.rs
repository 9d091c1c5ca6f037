//! The kinds that controllers read: the one list from which the [`View`](crate::View), the watches and the runtime's
//! informers are made.

pub use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
pub use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
pub use k8s_openapi::api::batch::v1::{CronJob, Job};
pub use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
pub use k8s_openapi::api::coordination::v1::Lease;
pub use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret,
    Service, ServiceAccount,
};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::api::policy::v1::PodDisruptionBudget;
pub use k8s_openapi::api::rbac::v1::ClusterRole;
pub use k8s_openapi::api::storage::v1::StorageClass;

pub use crate::definitions::CustomResourceDefinition;

/// Calls a macro with every kind: the field of the view, the variant of [`Watch`](crate::Watch), the type, and which
/// objects: `all`, those of one namespace, those of one name, the one of a namespace and name, or all but some by a field selector.
#[macro_export]
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro! {
            certificate_signing_requests CertificateSigningRequests CertificateSigningRequest all,
            cluster_infos ClusterInfos ConfigMap (one "kube-public" "cluster-info"),
            cluster_roles ClusterRoles ClusterRole all,
            config_maps ConfigMaps ConfigMap (name "kube-root-ca.crt"),
            controller_revisions ControllerRevisions ControllerRevision all,
            custom_resource_definitions CustomResourceDefinitions CustomResourceDefinition all,
            cron_jobs CronJobs CronJob all,
            daemon_sets DaemonSets DaemonSet all,
            deployments Deployments Deployment all,
            endpoint_slices EndpointSlices EndpointSlice all,
            endpoints Endpoints Endpoints all,
            jobs Jobs Job all,
            leases Leases Lease (namespace "kube-node-lease"),
            namespaces Namespaces Namespace all,
            nodes Nodes Node all,
            persistent_volume_claims PersistentVolumeClaims PersistentVolumeClaim all,
            persistent_volumes PersistentVolumes PersistentVolume all,
            pod_disruption_budgets PodDisruptionBudgets PodDisruptionBudget all,
            pods Pods Pod all,
            replica_sets ReplicaSets ReplicaSet all,
            replication_controllers ReplicationControllers ReplicationController all,
            resource_quotas ResourceQuotas ResourceQuota all,
            secrets Secrets Secret (but "type!=Opaque,type!=helm.sh/release.v1,type!=kubernetes.io/tls,type!=kubernetes.io/dockerconfigjson"),
            service_accounts ServiceAccounts ServiceAccount all,
            services Services Service all,
            stateful_sets StatefulSets StatefulSet all,
            token_tracking TokenTracking ConfigMap (one "kube-system" "kube-apiserver-legacy-service-account-token-tracking"),
            storage_classes StorageClasses StorageClass all,
            validating_admission_policies ValidatingAdmissionPolicies ValidatingAdmissionPolicy all,
        }
    };
}
