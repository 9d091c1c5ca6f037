//! Real clients, real containers, real packets: a whole cluster per test, in a network namespace of its own, started and
//! driven through the `skiff` binary as a user would. Everything is removed again, also when a test fails.

pub mod archive;
pub mod balancer;
mod cluster;
pub mod extension;
pub mod fleet;
pub mod kills;
pub mod script;
mod shared;
mod typed;
mod wait;

pub use cluster::{Cluster, Output, skiff};
pub use shared::{Space, shared};
pub use wait::{eventually, eventually_within};

/// Whether tests that need root can run; says so where not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Whether kubectl is installed; says so where not.
pub fn has_kubectl() -> bool {
    let found = std::process::Command::new("kubectl").args(["version", "--client"]).output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: kubectl is not installed");
    }
    found
}
