//! The kubelet against a real API server in this process and a CRI server in memory: no root, no containers.

#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod fake_cri;
mod pods;
mod server;

mod volumes;
