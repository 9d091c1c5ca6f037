//! A front proxy's word for who asks: `X-Remote-*` headers beside a certificate of the proxy itself. Without that certificate
//! the headers mean nothing, and whoever comes from the network never keeps them.

use auth::User;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;

use super::options::RequestHeader;
use super::x509;
use crate::http::query::decode;
use crate::tls::Verifier;

/// The user the proxy vouches for.
pub fn authenticate(
    options: &RequestHeader,
    authority: &Verifier,
    certificates: &[CertificateDer<'static>],
    headers: &HeaderMap,
) -> Option<User> {
    // Asked first: it costs least and says no for nearly every request.
    let name = first(headers, &options.username_headers)?;
    let leaf = certificates.first()?;
    if !super::verified(authority, certificates) {
        return None;
    }
    let proxy = x509::common_name(leaf)?;
    if !options.allowed_names.is_empty() && !options.allowed_names.contains(&proxy) {
        return None;
    }
    let groups: Vec<String> = options.group_headers.iter().flat_map(|h| texts(headers, h)).collect();
    let mut user = User::new(name, &groups.iter().map(String::as_str).collect::<Vec<_>>());
    user.uid = first(headers, &options.uid_headers).unwrap_or_default();
    for prefix in &options.extra_headers_prefix {
        let prefix = prefix.to_ascii_lowercase();
        for (key, value) in headers {
            if let (Some(key), Ok(value)) = (key.as_str().strip_prefix(&prefix), value.to_str()) {
                let key = decode(key, false).unwrap_or_else(|| key.to_owned());
                user.extra.entry(key).or_default().push(value.to_owned());
            }
        }
    }
    Some(user)
}

/// Takes the headers away, so that no handler and no back end believes them.
pub fn strip(options: &RequestHeader, headers: &mut HeaderMap) {
    if !headers.keys().any(|k| k.as_str().starts_with("x-remote-")) && options.is_usual() {
        return;
    }
    for name in options.username_headers.iter().chain(&options.uid_headers).chain(&options.group_headers) {
        headers.remove(name.as_str());
    }
    for prefix in &options.extra_headers_prefix {
        let prefix = prefix.to_ascii_lowercase();
        let found: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with(&prefix)).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }
}

impl RequestHeader {
    fn is_usual(&self) -> bool {
        let named = |name: &String| name.len() > 9 && name[..9].eq_ignore_ascii_case("x-remote-");
        self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers).chain(&self.extra_headers_prefix).all(named)
    }
}

fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().filter_map(|n| texts(headers, n).into_iter().next()).find(|v| !v.is_empty())
}
