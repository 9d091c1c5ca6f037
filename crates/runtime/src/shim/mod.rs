//! The shim: one small single-threaded process per pod sandbox. It is in the pod's namespaces (so they live as long as
//! it does), is the parent of the pod's containers, and outlives the daemon.
//!
//! Forked by [`crate::zygote`]; spoken to by [`client`]. Nothing here may start a thread: it forks.

pub mod client;
mod container;
pub mod frame;
mod identity;
mod log;
mod process;
pub mod protocol;
mod rootfs;
mod sandbox;
mod server;
mod spawn;

pub use container::now_ns;
pub(crate) use sandbox::run;
