//! exec, attach and port-forward: the runtime gives a URL, the caller's upgrade is passed through to it byte for byte,
//! whatever it speaks (SPDY, WebSocket v4 or v5).

use std::sync::Arc;

use cri::v1;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Context;
use super::log_stream::instances;
use super::routes::{Body, plain, query};
use crate::kubelet::Node;
use crate::labels;

fn failed(status: &tonic::Status) -> Response<Body> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", crate::images::error_text(status)))
}

async fn running(node: &Node, namespace: &str, pod: &str, container: &str) -> Result<String, Response<Body>> {
    let list = instances(node, namespace, pod, container).await.map_err(|s| failed(&s))?;
    let state = v1::ContainerState::ContainerRunning as i32;
    let found = list.into_iter().find(|c| c.state == state).map(|c| c.id);
    found.ok_or_else(|| plain(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")\n")))
}

pub async fn exec(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    request: Request<Incoming>,
    attach: bool,
) -> Response<Body> {
    let pairs = query(&request);
    let on = |names: [&str; 2]| pairs.iter().any(|(k, v)| names.contains(&k.as_str()) && (v == "1" || v == "true"));
    let (stdin, stdout, tty) = (on(["input", "stdin"]), on(["output", "stdout"]), on(["tty", "tty"]));
    let stderr = on(["error", "stderr"]) && !tty;
    if !stdin && !stdout && !stderr {
        return plain(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let container_id = match running(&context.node, namespace, pod, container).await {
        Ok(id) => id,
        Err(refusal) => return refusal,
    };
    let mut runtime = context.node.cri.runtime.clone();
    let url = if attach {
        let asked = v1::AttachRequest { container_id, stdin, tty, stdout, stderr };
        runtime.attach(asked).await.map(|a| a.into_inner().url)
    } else {
        let cmd = pairs.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
        runtime.exec(v1::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }).await.map(|a| a.into_inner().url)
    };
    match url {
        Ok(url) => pass(context, &url, request).await,
        Err(status) => failed(&status),
    }
}

pub async fn port_forward(context: &Arc<Context>, namespace: &str, pod: &str, request: Request<Incoming>) -> Response<Body> {
    let uid = context.node.pods.get(namespace, pod).and_then(|p| p.metadata.uid.clone());
    let Some(uid) = uid else { return plain(StatusCode::NOT_FOUND, format!("pod {pod:?} not found\n")) };
    let filter = v1::PodSandboxFilter {
        label_selector: [(labels::POD_UID.to_owned(), uid)].into_iter().collect(),
        state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 }),
        ..Default::default()
    };
    let mut runtime = context.node.cri.runtime.clone();
    let sandbox = match runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await {
        Ok(answer) => answer.into_inner().items.into_iter().next(),
        Err(status) => return failed(&status),
    };
    let Some(sandbox) = sandbox else { return plain(StatusCode::NOT_FOUND, format!("pod not found (\"{pod}_{namespace}\")\n")) };
    let ports = query(&request).into_iter().filter(|(k, _)| k == "port" || k == "ports");
    let port = ports.flat_map(|(_, v)| v.split(',').map(str::to_owned).collect::<Vec<_>>()).filter_map(|p| p.parse().ok()).collect();
    match runtime.port_forward(v1::PortForwardRequest { pod_sandbox_id: sandbox.id, port }).await {
        Ok(answer) => pass(context, &answer.into_inner().url, request).await,
        Err(status) => failed(&status),
    }
}

/// Runs a command and answers with its output.
pub async fn run(context: &Arc<Context>, namespace: &str, pod: &str, container: &str, pairs: &[(String, String)]) -> Response<Body> {
    let container_id = match running(&context.node, namespace, pod, container).await {
        Ok(id) => id,
        Err(refusal) => return refusal,
    };
    let text = pairs.iter().find(|(k, _)| k == "cmd").map(|(_, v)| v.clone()).unwrap_or_default();
    let cmd = text.split_whitespace().map(str::to_owned).collect();
    match context.node.cri.runtime.clone().exec_sync(v1::ExecSyncRequest { container_id, cmd, timeout: 0 }).await {
        Ok(answer) => {
            let a = answer.into_inner();
            let output = [a.stdout, a.stderr].concat();
            if a.exit_code == 0 {
                plain(StatusCode::OK, output)
            } else {
                let text = format!("command '{text}' exited with {}: {}", a.exit_code, String::from_utf8_lossy(&output));
                plain(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
        Err(status) => failed(&status),
    }
}

/// Sends the request to where the runtime streams, and joins both ends once it has switched protocols.
async fn pass(context: &Arc<Context>, url: &str, mut request: Request<Incoming>) -> Response<Body> {
    let broken = |e: &dyn std::fmt::Display| plain(StatusCode::BAD_GATEWAY, format!("error dialing backend: {e}\n"));
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(e) => return broken(&format!("{url}: {e}")),
    };
    let (host, port) = (uri.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80));
    let stream = match TcpStream::connect((host.as_str(), port)).await {
        Ok(stream) => stream,
        Err(e) => return broken(&e),
    };
    let (mut sender, connection) =
        match hyper::client::conn::http1::handshake::<_, http_body_util::Empty<bytes::Bytes>>(TokioIo::new(stream)).await {
            Ok(pair) => pair,
            Err(e) => return broken(&e),
        };
    context.streams.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "streaming connection");
        }
    });
    let mut onward = Request::builder().method(request.method().clone()).uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    for (name, value) in request.headers().iter().filter(|(n, _)| *n != "host" && *n != "authorization" && *n != "content-length") {
        onward = onward.header(name, value);
    }
    let onward = match onward.header("host", uri.authority().map_or("", |a| a.as_str())).body(http_body_util::Empty::new()) {
        Ok(onward) => onward,
        Err(e) => return broken(&e),
    };
    let mut answer = match sender.send_request(onward).await {
        Ok(answer) => answer,
        Err(e) => return broken(&e),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (near, far) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
        let cancel = context.cancel.clone();
        context.streams.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = ::upgrade::join(near, far) => {}
            }
        });
    }
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync())
}
