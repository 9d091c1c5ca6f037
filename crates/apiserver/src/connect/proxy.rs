//! `nodes/proxy`, `pods/proxy`, `services/proxy`: any request, passed on (upstream's `UpgradeAwareHandler`).

use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use machinery::status::StatusError;

use super::{forward, location, upgrade};
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{Body, RequestBody};
use crate::verbs::Target;

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let raw = request.uri().path().to_owned();
    let (prefix, rest) = split(&raw, target.resource.namespaced);
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let backend = location::find(&call.api, &target).await?;
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    if upgrade::asked(request.headers()) {
        return upgrade::pass(&call, request, &backend, &path).await;
    }
    if rest.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(moved(&format!("{raw}/{query}")));
    }
    let mut headers = forward::onward(&call.headers, call.client);
    if let Ok(uri) = HeaderValue::from_str(&raw) {
        headers.insert("x-forwarded-uri", uri);
    }
    let onward = forward::request(&call, headers, call.method.clone(), &path, request.into_body())?;
    let answer = call.api.connections.send(&backend, onward).await;
    let failed = |e| StatusError::new(503, "ServiceUnavailable", format!("error trying to reach service: {e}"));
    Ok(come_back(answer.map_err(failed)?, prefix, &backend.authority(), &call.host))
}

/// The path up to and with `proxy`, and the rest, empty or with its leading slash. Both as the client escaped them.
fn split(path: &str, namespaced: bool) -> (&str, &str) {
    // /api/v1[/namespaces/NAMESPACE]/RESOURCE/NAME/proxy
    let slashes = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(slashes).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

/// A path without an end is none for relative links.
fn moved(to: &str) -> Answer {
    let mut answer = Answer::new(Body::empty());
    *answer.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

/// The backend's answer; redirects to itself lead back here. Nothing is followed.
fn come_back(answer: Response<Incoming>, prefix: &str, backend: &str, host: &str) -> Answer {
    let (mut parts, body) = answer.into_parts();
    forward::back(&mut parts.headers);
    let rewritten = parts.headers.get(LOCATION).and_then(|l| rewrite(l.to_str().ok()?, prefix, backend, host));
    if let Some(location) = rewritten.and_then(|l| HeaderValue::from_str(&l).ok()) {
        parts.headers.insert(LOCATION, location);
    }
    Answer::from_parts(parts, Body::Proxied(body))
}

fn rewrite(location: &str, prefix: &str, backend: &str, host: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let elsewhere = uri.authority().is_some_and(|a| a.as_str() != backend && a.as_str() != host);
    if elsewhere || !uri.path().starts_with('/') || uri.path().starts_with(prefix) {
        return None;
    }
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    Some(format!("{prefix}{}{query}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_after_proxy() {
        assert_eq!(split("/api/v1/nodes/n/proxy/a%2Fb/", false), ("/api/v1/nodes/n/proxy", "/a%2Fb/"));
        assert_eq!(split("/api/v1/nodes/n/proxy", false), ("/api/v1/nodes/n/proxy", ""));
        assert_eq!(split("/api/v1/namespaces/d/pods/p:80/proxy/", true), ("/api/v1/namespaces/d/pods/p:80/proxy", "/"));
    }

    #[test]
    fn redirects_of_the_backend_lead_back_here() {
        let to = |location: &str| rewrite(location, "/p", "10.0.0.1:80", "api:6443");
        assert_eq!(to("/a/?b=c"), Some("/p/a/?b=c".to_owned()));
        assert_eq!(to("http://10.0.0.1:80/x"), Some("/p/x".to_owned()));
        assert_eq!(to("http://example.com/x"), None);
        assert_eq!(to("/p/x"), None);
    }
}
