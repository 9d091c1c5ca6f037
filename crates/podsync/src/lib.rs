//! What a kubelet does next for a pod: pure. Inputs are the pod, the containers a runtime reports, the results of
//! earlier actions and probes, and the time; outputs are actions, the pod's status and when to look again.
//! It is not a kubelet: no clock, files, sockets or CRI types. The `kubelet` crate feeds [`Machine`] and executes
//! what it returns.

pub mod action;
pub mod backoff;
pub mod cgroup;
pub mod conditions;
pub mod container_status;
mod containers;
pub mod downward;
pub mod env;
pub mod expand;
pub mod machine;
pub mod observed;
pub mod phase;
pub mod probe;
pub mod quantity;
pub mod requests;
pub mod restart;
pub mod service_env;
pub mod status;
mod terminate;
pub mod time;

pub use action::{Action, Event, Failure, Plan, Record};
pub use machine::{Machine, Settings};
pub use observed::{Observed, ObservedContainer, ObservedSandbox, RunState};
