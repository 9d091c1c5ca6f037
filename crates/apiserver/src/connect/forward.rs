//! The headers of a request or answer on its way through, as Go's `ReverseProxy` and upstream's `proxyutil.Transport` leave them.

use std::net::IpAddr;

use http::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Method, Request};
use machinery::status::StatusError;

use crate::chain::Call;
use crate::http::RequestBody;

/// Between two neighbours only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What goes on to a backend.
pub fn onward(headers: &HeaderMap, client: Option<IpAddr>) -> HeaderMap {
    let trailers = headers.get_all(TE).iter().any(|v| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("trailers")));
    let mut out = headers.clone();
    drop_hop_by_hop(&mut out);
    if trailers {
        out.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(client) = client {
        let before: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
        let chain = before.into_iter().map(str::to_owned).chain([client.to_string()]).collect::<Vec<_>>().join(", ");
        if let Ok(chain) = HeaderValue::from_str(&chain) {
            out.insert("x-forwarded-for", chain);
        }
    }
    out
}

/// [`onward`], of a request to switch protocols: that wish goes on, too.
pub fn onward_upgrade(headers: &HeaderMap, client: Option<IpAddr>) -> HeaderMap {
    let mut out = onward(headers, client);
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for value in headers.get_all(UPGRADE) {
        out.append(UPGRADE, value.clone());
    }
    out.remove("content-length");
    out
}

/// Of an answer that comes back.
pub fn back(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    let cross_origin: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("access-control-allow-")).cloned().collect();
    for name in cross_origin {
        headers.remove(name);
    }
}

/// A request of the same client to another place.
pub fn request(
    call: &Call,
    headers: HeaderMap,
    method: Method,
    path: &str,
    body: RequestBody,
) -> Result<Request<RequestBody>, StatusError> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|e| StatusError::bad_request(format!("{path}: {e}")))?;
    *request.headers_mut() = headers;
    if let Some(context) = crate::trace::onward() {
        request.headers_mut().insert("traceparent", context);
    }
    // HTTP/2 has the host in the URI.
    if !request.headers().contains_key("host")
        && let Ok(host) = HeaderValue::from_str(&call.host)
    {
        request.headers_mut().insert("host", host);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_headers_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept", "a"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let out = onward(&headers, Some("10.0.0.1".parse().unwrap()));
        let names: Vec<&str> = out.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(out["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        assert_eq!(out["te"], "trailers");
        assert_eq!(onward_upgrade(&headers, None)["upgrade"], "websocket");
        headers.insert("access-control-allow-origin", "*".parse().unwrap());
        back(&mut headers);
        assert!(headers.len() == 2 && headers.contains_key("accept") && headers.contains_key("x-forwarded-for"));
    }
}
