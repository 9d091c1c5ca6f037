//! Which path does what, and which permission it takes.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::identity::{self, Caller};
use super::{Context, log_stream, reports, upgrade};
use crate::config;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

pub fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// Decoded `name=value` pairs of a query.
pub fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    let text = request.uri().query().unwrap_or_default();
    text.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Percent-decoding; `+` is a blank in a query.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (bytes[i], bytes.get(i + 1).copied().and_then(hex), bytes.get(i + 2).copied().and_then(hex)) {
            (b'%', Some(h), Some(l)) => {
                out.push(h * 16 + l);
                i += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (b, _, _) => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The subresources of `nodes` that allow a path, as upstream's fine-grained authorization has them.
fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "spec" => vec!["spec"],
        "healthz" => vec!["healthz", "proxy"],
        "configz" => vec!["configz", "proxy"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        _ => vec!["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

async fn permitted(context: &Context, caller: Option<Caller>, request: &Request<Incoming>) -> Result<(), Response<Body>> {
    let bearer =
        request.headers().get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer ")).map(str::to_owned);
    let caller = match (caller, bearer) {
        (Some(caller), _) => Some(caller),
        (None, Some(token)) => identity::of_token(&context.node.client, &token).await,
        (None, None) => None,
    };
    let Some((user, groups)) = caller else { return Err(plain(StatusCode::UNAUTHORIZED, "Unauthorized")) };
    let path = request.uri().path().to_owned();
    let verb = verb(request.method());
    let subresources = subresources(&path);
    let shown = subresources.join(",");
    let asked = config::Request { user: user.clone(), groups, verb, subresources, path };
    if (context.server.authorize)(asked).await {
        return Ok(());
    }
    let text = format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{shown}])\n");
    Err(plain(StatusCode::FORBIDDEN, text))
}

pub async fn answer(context: Arc<Context>, caller: Option<Caller>, request: Request<Incoming>) -> Response<Body> {
    if let Err(refusal) = permitted(&context, caller, &request).await {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log"] => plain(StatusCode::OK, "ok"),
        ["healthz", "syncloop"] => {
            let last = *context.node.last_sync.lock().unwrap_or_else(PoisonError::into_inner);
            let late = last.elapsed() > std::time::Duration::from_secs(120);
            if late { plain(StatusCode::INTERNAL_SERVER_ERROR, "sync Loop took longer than expected") } else { plain(StatusCode::OK, "ok") }
        }
        ["pods"] => reports::pods(&context.node),
        ["runningpods"] => reports::running_pods(&context.node).await,
        ["configz"] => reports::configz(&context.node),
        ["stats", "summary"] => reports::summary(&context.node).await,
        ["metrics"] => reports::metrics(&context.node).await,
        ["metrics", "resource"] => reports::resource_metrics(&context.node).await,
        ["containerLogs", namespace, pod, container] => log_stream::answer(&context, namespace, pod, container, &query(&request)).await,
        ["exec", namespace, pod, rest @ .., container] if rest.len() < 2 => {
            let (namespace, pod, container) = ((*namespace).to_owned(), (*pod).to_owned(), (*container).to_owned());
            upgrade::exec(&context, &namespace, &pod, &container, request, false).await
        }
        ["attach", namespace, pod, rest @ .., container] if rest.len() < 2 => {
            let (namespace, pod, container) = ((*namespace).to_owned(), (*pod).to_owned(), (*container).to_owned());
            upgrade::exec(&context, &namespace, &pod, &container, request, true).await
        }
        ["run", namespace, pod, rest @ .., container] if rest.len() < 2 => {
            upgrade::run(&context, namespace, pod, container, &query(&request)).await
        }
        ["portForward", namespace, pod, rest @ ..] if rest.len() < 2 => {
            let (namespace, pod) = ((*namespace).to_owned(), (*pod).to_owned());
            upgrade::port_forward(&context, &namespace, &pod, request).await
        }
        _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_and_permissions() {
        assert_eq!(decode("a%20b+c%zz%"), "a b c%zz%");
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
    }
}
