//! What every controller decides: a view of the cluster in, a list of actions out.
//!
//! Nothing here can read a clock, draw a random number or send a request; time and seeds come with the [`Context`]. One
//! file per controller, one row in [`TABLE`] each. `controller-runtime` keeps the views, runs the rows and executes the
//! actions; tests run them against a model cluster. The garbage collector and namespace deletion work on any kind, so
//! they have shapes of their own: [`garbage_collector`] and [`namespace`].

pub mod action;
pub mod k8s;
pub mod meta;
pub mod pods;
pub mod selector;
pub mod view;

pub mod deployment;
pub mod garbage_collector;
pub mod namespace;
pub mod replica_set;

#[cfg(test)]
mod model;

pub use action::{Action, Event, Outcome, Target};
pub use view::{Config, Context, Failure, Key, Lister, View, Watch, index};

/// One controller.
pub struct Controller {
    /// Upstream's name: of the ServiceAccount it acts as in `kube-system`, and of the component in its events.
    pub name: &'static str,
    /// Changes of which kinds lead to which keys.
    pub watches: &'static [Watch],
    pub reconcile: fn(&View<'_>, &Key, &Context<'_>) -> Outcome,
}

/// All controllers of this shape, by name.
pub const TABLE: &[Controller] = &[deployment::CONTROLLER, replica_set::CONTROLLER];
