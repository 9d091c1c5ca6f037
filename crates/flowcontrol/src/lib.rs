//! API priority and fairness (upstream's `util/flowcontrol`): which FlowSchema a request matches, which queue its flow
//! gets, when it may run, and how priority levels lend each other seats. Time comes in as a number; nothing waits here.
//! The API server's `flow` module is the shell that does.

pub mod defaults;
pub mod demand;
pub mod lending;
pub mod level;
pub mod queueset;
#[cfg(test)]
mod queueset_tests;
pub mod schema;
pub mod shard;
pub mod work;

pub use level::{PriorityLevel, Queuing, Response};
pub use queueset::{Arrival, QueueSet, Refusal, Ticket};
pub use schema::{Digest, Distinguisher, FlowSchema};
pub use work::Work;
