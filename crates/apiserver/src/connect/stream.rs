//! exec, attach and portforward: the upgrade goes on to the pod's kubelet.

use http::Request;
use machinery::object;
use machinery::status::StatusError;

use super::{kubelet, pod, upgrade};
use crate::chain::Call;
use crate::http::query::encode;
use crate::http::respond::Answer;
use crate::http::{Query, RequestBody};
use crate::verbs::Target;

/// `exec` and `attach`.
pub async fn command(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let pod = pod::read(&call.api, &target).await?;
    let container = pod::container(&pod, call.query.text("container"))?;
    let backend = kubelet::of(&call.api, pod::node(&pod)?, true).await?;
    let query = parameters(&call.query, target.subresource == "exec");
    let path = format!("/{}/{}/{}/{container}?{query}", target.subresource, target.namespace, object::name(&pod));
    required(&call, request, &backend, &path).await
}

pub async fn port_forward(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let pod = pod::read(&call.api, &target).await?;
    let backend = kubelet::of(&call.api, pod::node(&pod)?, true).await?;
    let mut path = format!("/portForward/{}/{}", target.namespace, object::name(&pod));
    let ports: Vec<String> = call.query.all("ports").filter(|p| !p.is_empty()).map(|p| format!("port={}", encode(p))).collect();
    if !ports.is_empty() {
        path = format!("{path}?{}", ports.join("&"));
    }
    required(&call, request, &backend, &path).await
}

async fn required(
    call: &Call,
    request: Request<RequestBody>,
    backend: &super::backend::Backend,
    path: &str,
) -> Result<Answer, StatusError> {
    if !upgrade::asked(request.headers()) {
        return Err(StatusError::bad_request("Upgrade request required"));
    }
    upgrade::pass(call, request, backend, path).await
}

/// The kubelet's names of a client's options.
fn parameters(query: &Query, command: bool) -> String {
    let mut pairs = Vec::new();
    for (from, to) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(from) {
            pairs.push(format!("{to}=1"));
        }
    }
    if command {
        pairs.extend(query.all("command").map(|word| format!("command={}", encode(word))));
    }
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_get_the_kubelets_names() {
        let query = Query::parse("stdin=true&stdout=1&tty=false&command=sh&command=-c&command=echo+%26");
        assert_eq!(parameters(&query, true), "input=1&output=1&command=sh&command=-c&command=echo%20%26");
        assert_eq!(parameters(&query, false), "input=1&output=1");
    }
}
