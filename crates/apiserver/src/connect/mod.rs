//! Subresources that lead to another server: logs, exec, attach and port-forward at a pod's kubelet, and the proxies of
//! nodes, pods and services. Called by `sub`; nothing here reads or writes what is stored, but to find the way.

mod address;
mod backend;
pub mod forward;
mod html;
mod idle;
mod kubelet;
mod location;
mod log;
mod pod;
mod proxy;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
pub mod upgrade;

use http::Request;
use machinery::status::StatusError;

pub use address::{called, proxyable};
pub use backend::{Backend, BackendError, Connections};

use crate::admission;
use crate::chain::Call;
use crate::http::RequestBody;
use crate::http::respond::Answer;
use crate::verbs::Target;

/// Whether a subresource is one of these.
pub fn is(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    if target.subresource != "log" {
        admission::connecting(&call, &target).await?;
    }
    match target.subresource.as_str() {
        "log" => log::serve(call, target).await,
        "exec" | "attach" => stream::command(call, request, target).await,
        "portforward" => stream::port_forward(call, request, target).await,
        _ => proxy::serve(call, request, target).await,
    }
}
