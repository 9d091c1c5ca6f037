//! Reaching the server behind an APIService: its address, its TLS, and the headers that say on whose behalf
//! (upstream's `transport.SetAuthProxyHeaders`).

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use machinery::status::StatusError;

use super::routes::Route;
use crate::connect::{self, Backend};
use crate::http::body::boxed;
use crate::state::Api;
use crate::webhook::service;

/// Documents larger than this are not taken.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// What the server asks for itself may take so long.
const PATIENCE: Duration = Duration::from_secs(6);

/// Where to connect to now.
pub async fn find(api: &Arc<Api>, route: &Route) -> Result<Backend, StatusError> {
    let tls = route.tls.clone().map_err(|why| StatusError::new(500, "", why))?;
    let of = &route.service;
    let address = service::resolve(api, &of.namespace, &of.name, of.port, api.connections.turn()).await?;
    let ip = connect::called(api, &address.host, address.port).await;
    let host = ip.map_err(|why| StatusError::new(503, "ServiceUnavailable", why))?.to_string();
    Ok(Backend { host, port: address.port, tls: Some(tls), server_name: Some(of.host()) })
}

/// Says on whose behalf a request is made; whatever the client said of that itself is gone.
pub fn speak_for(headers: &mut HeaderMap, user: &User) {
    let forged: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("x-remote-") || n.as_str().starts_with("impersonate-")).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.remove(http::header::AUTHORIZATION);
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        for value in values {
            add(&format!("x-remote-extra-{}", escape(key)), value);
        }
    }
}

/// Percent-encodes what a header's name cannot hold.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for b in key.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b);
        if plain { out.push(char::from(b)) } else { out.push_str(&format!("%{b:02X}")) }
    }
    out
}

/// An answer with its whole body.
pub struct Document {
    pub code: u16,
    pub bytes: Bytes,
    /// Where it came from, for errors.
    pub url: String,
}

/// Reads a document as the aggregator itself, who may everything there.
pub async fn read(api: &Arc<Api>, route: &Route, path: &str, accept: &str) -> Result<Document, String> {
    let backend = find(api, route).await.map_err(|e| e.message)?;
    let url = format!("https://{}{path}", backend.authority());
    let work = async {
        let mut request = Request::get(path).body(boxed(Empty::new())).map_err(|e| e.to_string())?;
        let headers = request.headers_mut();
        for (name, value) in [(HOST, route.service.host()), (ACCEPT, accept.to_owned())] {
            headers.insert(name, HeaderValue::from_str(&value).map_err(|e| e.to_string())?);
        }
        speak_for(headers, &User { name: "system:kube-aggregator".into(), groups: vec!["system:masters".into()], ..User::default() });
        let answer = api.connections.send(&backend, request).await;
        let answer: Response<hyper::body::Incoming> =
            answer.map_err(|e| format!("failing or missing response from {url}: Get {url:?}: {e}"))?;
        let (parts, body) = answer.into_parts();
        let bytes = Limited::new(body, DOCUMENT_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|e| format!("failing or missing response from {url}: Get {url:?}: {e}"))?.to_bytes();
        Ok(Document { code: parts.status.as_u16(), bytes, url: url.clone() })
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(format!("timed out waiting for {url}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_named_and_nobody_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "forged"), ("x-remote-extra-a", "b"), ("authorization", "Bearer t"), ("accept", "a")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut user = User { name: "jane".into(), uid: "7".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
        user.extra.insert("example.com/x y".into(), vec!["1".into(), "2".into()]);
        speak_for(&mut headers, &user);
        let all = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-uid"), all("x-remote-group")), (vec!["jane"], vec!["7"], vec!["a", "b"]));
        assert_eq!(all("x-remote-extra-example.com%2fx%20y"), ["1", "2"]);
        assert!(all("authorization").is_empty() && all("x-remote-extra-a").is_empty() && all("accept") == ["a"]);
    }
}
