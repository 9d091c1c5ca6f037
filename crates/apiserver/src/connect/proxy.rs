//! `nodes/proxy`, `pods/proxy`, `services/proxy`: any request, passed on (upstream's `UpgradeAwareHandler`).

use std::io::{Read as _, Write as _};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use machinery::status::StatusError;

use super::{forward, html, location, upgrade};
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{Body, RequestBody};
use crate::verbs::Target;

/// A larger page is passed through as it is.
const PAGE_BYTES_MAX: usize = 8 << 20;

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
    let from = From { prefix, backend: &backend.authority(), host: &call.host };
    Ok(come_back(answer.map_err(failed)?, &from).await)
}

/// What leads back here.
struct From<'a> {
    /// Of the path, up to and with `proxy`.
    prefix: &'a str,
    /// The backend's authority, and the one the client asked.
    backend: &'a str,
    host: &'a str,
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

/// The backend's answer; redirects to itself, and links of its pages, lead back here. Nothing is followed.
async fn come_back(answer: Response<Incoming>, from: &From<'_>) -> Answer {
    let (mut parts, body) = answer.into_parts();
    forward::back(&mut parts.headers);
    if let Some(location) = parts.headers.get(LOCATION) {
        let led = location.to_str().ok().and_then(|l| from.lead(l));
        if let Some(location) = led.and_then(|l| HeaderValue::from_str(&l).ok()) {
            parts.headers.insert(LOCATION, location);
        }
        return Answer::from_parts(parts, Body::Proxied(body));
    }
    let header = |name| parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let is_page = header(CONTENT_TYPE).split(';').next().is_some_and(|t| t.trim() == "text/html");
    let packing = match header(CONTENT_ENCODING) {
        "" => Packing::None,
        "gzip" => Packing::Gzip,
        "deflate" => Packing::Deflate,
        _ => return Answer::from_parts(parts, Body::Proxied(body)),
    };
    if !is_page || http_body::Body::is_end_stream(&body) {
        return Answer::from_parts(parts, Body::Proxied(body));
    }
    let body = match read(body).await {
        Ok(page) => match rewritten(page.clone(), packing, from) {
            Some(page) => {
                parts.headers.insert(CONTENT_LENGTH, page.len().into());
                Body::from(page)
            }
            None => Body::from(page),
        },
        Err(unread) => unread,
    };
    Answer::from_parts(parts, body)
}

#[derive(Clone, Copy)]
enum Packing {
    None,
    Gzip,
    Deflate,
}

/// A page whole, or, where it is too large to be looked at, what passes it through.
async fn read(mut body: Incoming) -> Result<Bytes, Body> {
    let mut page = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = frame.is_err();
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => page.extend_from_slice(&data),
            Ok(Err(_)) => {}
            Err(error) => tracing::debug!(%error, "a proxied page broke off"),
        }
        if broken || page.len() > PAGE_BYTES_MAX {
            let first = futures::stream::once(std::future::ready(Ok(page.freeze())));
            let rest = http_body_util::BodyDataStream::new(body).map_err(Into::into);
            // A page that broke off must not look whole.
            let end = futures::stream::iter(broken.then(|| Err("the page broke off".into())));
            return Err(Body::Stream(first.chain(end).chain(rest).boxed()));
        }
    }
    Ok(page.freeze())
}

/// Unpacked, led and packed again; nothing, where that cannot be.
fn rewritten(page: Bytes, packing: Packing, from: &From<'_>) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = PAGE_BYTES_MAX as u64 + 1;
    let unpacked = match packing {
        Packing::None => (&*page).take(limit).read_to_end(&mut plain),
        Packing::Gzip => flate2::read::MultiGzDecoder::new(&*page).take(limit).read_to_end(&mut plain),
        Packing::Deflate => flate2::read::DeflateDecoder::new(&*page).take(limit).read_to_end(&mut plain),
    };
    if !unpacked.is_ok_and(|bytes| bytes <= PAGE_BYTES_MAX) {
        return None;
    }
    let led = html::rewrite(&plain, |url| from.lead(url));
    let fast = flate2::Compression::fast();
    match packing {
        Packing::None => Some(led),
        Packing::Gzip => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), fast);
            packer.write_all(&led).and_then(|()| packer.finish()).ok()
        }
        Packing::Deflate => {
            let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), fast);
            packer.write_all(&led).and_then(|()| packer.finish()).ok()
        }
    }
}

/// `scheme://authority`, and what comes after.
fn authority(url: &str) -> (&str, &str, &str) {
    let scheme = url.find("://").filter(|at| url[..*at].bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b)));
    let (origin, start) = match scheme {
        Some(at) => (0, at + 3),
        None if url.starts_with("//") => (0, 2),
        None => return ("", "", url),
    };
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    (&url[origin..end], &url[start..end], &url[end..])
}

/// As Go's `path.Join`, with the slash at the end that it drops.
fn join(prefix: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

impl From<'_> {
    /// Where an address of the backend's leads from here; `None`: it stays.
    fn lead(&self, url: &str) -> Option<String> {
        let (origin, authority, rest) = authority(url);
        let (path, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let elsewhere = !authority.is_empty() && authority != self.backend && authority != self.host;
        if elsewhere || !path.starts_with('/') {
            return None;
        }
        let origin = if authority == self.host { origin } else { "" };
        let path = if path.starts_with(self.prefix) { path.to_owned() } else { join(self.prefix, path) };
        Some(format!("{origin}{path}{query}"))
    }
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
    fn addresses_of_the_backend_lead_back_here() {
        let from = From { prefix: "/p/proxy", backend: "10.0.0.1:80", host: "api:6443" };
        for (url, led) in [
            ("/a/?b=c#d", Some("/p/proxy/a/?b=c#d")),
            ("/a//b/../c", Some("/p/proxy/a/c")),
            ("http://10.0.0.1:80/x", Some("/p/proxy/x")),
            ("//10.0.0.1:80/x", Some("/p/proxy/x")),
            ("https://api:6443/x", Some("https://api:6443/p/proxy/x")),
            ("http://10.0.0.1:80/p/proxy/x", Some("/p/proxy/x")),
            ("/p/proxy/x", Some("/p/proxy/x")),
            ("http://example.com/x", None),
            ("http://10.0.0.1:80", None),
            ("rel/x", None),
            ("#x", None),
            ("javascript:alert(1)", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(from.lead(url).as_deref(), led, "{url}");
        }
    }

    #[test]
    fn packed_pages_are_led_too() {
        let from = From { prefix: "/p", backend: "b", host: "h" };
        let pack = |page: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(page).unwrap();
            Bytes::from(packer.finish().unwrap())
        };
        let led = rewritten(pack(b"<a href=/x>"), Packing::Gzip, &from).unwrap();
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&*led).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "<a href=\"/p/x\">");
        assert!(rewritten(Bytes::from_static(b"no gzip"), Packing::Gzip, &from).is_none());
        assert!(rewritten(pack(&vec![b' '; PAGE_BYTES_MAX + 1]), Packing::Gzip, &from).is_none(), "a bomb is passed through");
    }
}
