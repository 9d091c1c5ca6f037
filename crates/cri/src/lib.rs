//! The Container Runtime Interface, `runtime.v1`: its messages, both clients and both servers.
//!
//! This is only the wire: what a call means lives in `runtime` (our server) and `kubelet` (our client). Any CRI
//! runtime (containerd, CRI-O) can stand behind [`connect`].

mod connect;

/// Messages, `runtime_service_client`, `runtime_service_server`, `image_service_client`, `image_service_server`.
#[expect(clippy::all, clippy::allow_attributes, missing_docs, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub use connect::{Clients, ConnectError, MESSAGE_BYTES_MAX, connect};
pub use v1::image_service_client::ImageServiceClient;
pub use v1::runtime_service_client::RuntimeServiceClient;
