//! What every controller decides: a view of the cluster in, a list of actions out.
//!
//! Nothing here can read a clock, draw a random number or send a request; time and seeds come with the [`Context`]. One
//! file per controller, one row in [`TABLE`] each. `controller-runtime` keeps the views, runs the rows and executes the
//! actions; tests run them against a model cluster. The garbage collector and namespace deletion work on any kind, so
//! they have shapes of their own: [`garbage_collector`] and [`namespace`].

pub mod action;
pub mod history;
pub mod k8s;
pub mod keys;
pub mod meta;
pub mod pods;
pub mod selector;
pub mod view;

pub mod bootstrap_tokens;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod daemon_set;
pub mod definitions;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod garbage_collector;
pub mod job;
pub mod legacy_service_account_token;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_quota;
pub mod root_ca;
pub mod service_account;
pub mod service_account_token;
pub mod service_load_balancer;
pub mod stateful_set;
pub mod taint_eviction;
pub mod ttl_after_finished;
pub mod validating_admission_policy_status;
pub mod volume_binder;
pub mod volume_protection;

#[cfg(test)]
mod model;

pub use action::{Action, Event, Outcome, Target};
pub use view::{Config, Context, Counts, Failure, Key, Lister, View, Watch, index};

/// The identity of the manager itself, where a controller has none of its own.
pub const MANAGER: &str = "kube-controller-manager";

/// One controller.
pub struct Controller {
    /// What it does, as upstream's `--controllers` flag names it.
    pub name: &'static str,
    /// The ServiceAccount in `kube-system` that it acts as.
    pub identity: &'static str,
    /// The component in its events.
    pub component: &'static str,
    /// Changes of which kinds lead to which keys.
    pub watches: &'static [Watch],
    pub reconcile: fn(&View<'_>, &Key, &Context<'_>) -> Outcome,
}

/// All controllers of this shape, by name.
pub const TABLE: &[Controller] = &[
    bootstrap_tokens::CLEANER,
    bootstrap_tokens::SIGNER,
    certificates::approve::CONTROLLER,
    certificates::clean::CONTROLLER,
    certificates::sign::CONTROLLER,
    cluster_role_aggregation::CONTROLLER,
    cron_job::CONTROLLER,
    daemon_set::CONTROLLER,
    deployment::CONTROLLER,
    disruption::CONTROLLER,
    endpoints::CONTROLLER,
    endpoint_slice::CONTROLLER,
    endpoint_slice_mirroring::CONTROLLER,
    ephemeral_volume::CONTROLLER,
    job::CONTROLLER,
    legacy_service_account_token::CONTROLLER,
    node_ipam::CONTROLLER,
    node_lifecycle::CONTROLLER,
    pod_gc::CONTROLLER,
    replica_set::CONTROLLER,
    replication_controller::CONTROLLER,
    resource_quota::CONTROLLER,
    root_ca::CONTROLLER,
    service_load_balancer::CONTROLLER,
    service_account::CONTROLLER,
    service_account_token::CONTROLLER,
    stateful_set::CONTROLLER,
    taint_eviction::CONTROLLER,
    ttl_after_finished::CONTROLLER,
    validating_admission_policy_status::CONTROLLER,
    volume_binder::CLAIMS,
    volume_binder::VOLUMES,
    volume_protection::CLAIMS,
    volume_protection::VOLUMES,
];
