//! Where a pod goes: a snapshot of the cluster, filter and score plugins, preemption, and [`schedule`] over them.
//!
//! Pure: the `scheduler` crate feeds it watch events and executes its verdicts; `sim` and the tests call it directly. The
//! semantics of every plugin are those of kube-scheduler v1.36 in its default profile.

pub mod cluster;
pub mod devices;
pub mod enqueue;
pub mod message;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod selector;
pub mod storage;

pub use cluster::Cluster;
pub use node::NodeInfo;
pub use pod::PodInfo;
pub use schedule::{Verdict, schedule};
