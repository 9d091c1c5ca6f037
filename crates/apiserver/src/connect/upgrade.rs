//! Switching protocols through this server: the backend decides, then both ends are joined.

use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use machinery::status::StatusError;

use super::backend::Backend;
use super::forward;
use crate::chain::Call;
use crate::http::body::boxed;
use crate::http::respond::Answer;
use crate::http::{Body, RequestBody};

/// Whether a request wants to switch protocols.
pub fn asked(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|v| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("upgrade")))
}

/// Sends the request on to `path` at the backend, and joins both ends once it has switched.
pub async fn pass(call: &Call, mut request: Request<RequestBody>, backend: &Backend, path: &str) -> Result<Answer, StatusError> {
    // Requests of this process and of HTTP/2 connections have nothing to switch.
    if request.extensions().get::<OnUpgrade>().is_none() {
        return Err(StatusError::bad_request("Upgrade request required"));
    }
    let near = hyper::upgrade::on(&mut request);
    let headers = forward::onward_upgrade(&call.headers, call.client);
    let onward = forward::request(call, headers, call.method.clone(), path, boxed(http_body_util::Empty::new()))?;
    let answer = call.api.connections.send(backend, onward).await;
    let mut answer = answer.map_err(|e| StatusError::new(500, "", format!("error dialing backend: {e}")))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        call.api.connections.spawn(::upgrade::join(near, hyper::upgrade::on(&mut answer)));
        let (parts, _) = answer.into_parts();
        return Ok(Answer::from_parts(parts, Body::empty()));
    }
    // What the backend said instead is the answer, and the last one on this connection.
    let (mut parts, body) = answer.into_parts();
    forward::back(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(Answer::from_parts(parts, Body::Proxied(body)))
}
