//! What the fuzz targets (`fuzz/src/bin`) attack in this crate and is no part of its interface. Only there when built for
//! fuzzing; nothing else calls it.

use std::path::Path;

use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::audit::policy::{Level, Policy};
use crate::authn::options::RequestHeader;
use crate::authn::{impersonate, request_header};
use crate::http::Query;
use crate::http::negotiate::{kinds, negotiate};
use crate::http::query::{decode, encode};
use crate::request::RequestInfo;

/// An audit policy, and what it says of some requests.
pub fn audit_policy(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else { return };
    let user = auth::User::new("a", &["g", "system:authenticated"]);
    for path in ["/healthz", "/api/v1/namespaces/n/pods/p/log", "/apis/apps/v1/deployments", "/"] {
        for method in [Method::GET, Method::POST] {
            let info = RequestInfo::parse(&method, path, &Query::default());
            for user in [Some(&user), None] {
                let verdict = policy.judge(user, &info);
                assert!(verdict.level > Level::None || verdict.level.name() == "None");
                assert_eq!(verdict, policy.judge(user, &info));
            }
        }
    }
}

/// An AuthorizationConfiguration: a chain, or at least one reason why not.
pub fn authorization(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    match crate::authz::options::parse(&read.value, Path::new("/nowhere")) {
        Ok(chain) => assert!(!chain.is_empty()),
        Err(reasons) => assert!(!reasons.is_empty()),
    }
}

/// An AdmissionConfiguration, and what every plugin makes of its part.
pub fn admission(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    if let Err(why) = crate::admission::plugins::try_all(&read.value) {
        assert!(!why.is_empty());
    }
}

/// A kubeconfig of a webhook. Files it names are looked for where there are none.
pub fn kubeconfig(bytes: &[u8]) {
    let Ok(read) = machinery::yaml::parse(bytes) else { return };
    if let Ok(endpoint) = crate::webhook::kubeconfig::of_config(&read.value, Path::new("/nowhere")) {
        assert!(endpoint.url("").starts_with("https://"));
    }
}

/// `PATH?QUERY`, then headers, a line each: what the chain reads of a request before it knows who asks.
pub fn request(text: &str) {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (path, query) = first.split_once('?').unwrap_or((first, ""));
    let query = Query::parse(query);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let info = RequestInfo::parse(&method, path, &query);
        assert!(!info.verb.is_empty() && (info.is_resource || info.resource.is_empty()), "{info:?}");
    }
    assert_eq!(decode(&encode(path), true).as_deref(), Some(path));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.take(64).filter_map(|l| l.split_once(':')) {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.trim().as_bytes()), HeaderValue::from_str(value.trim())) else { continue };
        headers.append(name, value);
    }
    for (views, protobuf) in [(true, true), (false, true), (true, false)] {
        if let Err(refusal) = negotiate(&headers, &query, views, protobuf) {
            assert_eq!(refusal.code, 406);
        }
    }
    for accept in headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()) {
        assert!(kinds(accept).len() <= 64);
    }
    if let Ok(Some(user)) = impersonate::wanted(&headers) {
        assert!(!user.name.is_empty());
    }
    let mut stripped = headers.clone();
    request_header::strip(&RequestHeader::default(), &mut stripped);
    let believed = ["x-remote-user", "x-remote-uid", "x-remote-group"];
    assert!(stripped.keys().all(|name| !believed.contains(&name.as_str()) && !name.as_str().starts_with("x-remote-extra-")));
}
