//! Real packets through real rules: network namespaces stand for hosts and pods. Needs root; says so and passes without.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "packets/api.rs"]
mod api;
#[path = "packets/world.rs"]
mod world;

#[path = "packets/nodes.rs"]
mod nodes;
#[path = "packets/pods.rs"]
mod pods;
#[path = "packets/policies.rs"]
mod policies;
#[path = "packets/services.rs"]
mod services;
