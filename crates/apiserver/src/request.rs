//! What a request's path and method ask for (upstream's `RequestInfoFactory`).

use http::Method;

use crate::http::Query;
use crate::http::query::decode;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    /// Decoded.
    pub path: String,
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the API version, resource first.
    pub parts: Vec<String>,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let path = decode(path, false).unwrap_or_else(|| path.to_owned());
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), path, ..Self::default() };
        let trimmed = info.path.trim_matches('/').to_owned();
        let mut parts: &[&str] = &trimmed.split('/').collect::<Vec<_>>();
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return info;
        }
        info.prefix = parts[0].to_owned();
        parts = &parts[1..];
        if info.prefix == "apis" {
            if parts.len() < 3 {
                return info;
            }
            info.group = parts[0].to_owned();
            parts = &parts[1..];
        }
        info.is_resource = true;
        info.version = parts[0].to_owned();
        parts = &parts[1..];
        info.verb = verb_of(method).to_owned();
        let special = matches!(parts[0], "proxy" | "watch");
        if special {
            if parts.len() < 2 {
                info.is_resource = false;
                return info;
            }
            info.verb = parts[0].to_owned();
            parts = &parts[1..];
        }
        if parts[0] == "namespaces"
            && let Some(namespace) = parts.get(1)
        {
            info.namespace = (*namespace).to_owned();
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts = &parts[2..];
            }
        }
        info.parts = parts.iter().map(|p| (*p).to_owned()).collect();
        let part = |i: usize| parts.get(i).map(|p| (*p).to_owned()).unwrap_or_default();
        info.resource = part(0);
        info.name = part(1);
        if info.verb != "proxy" {
            info.subresource = part(2);
        }
        info.refine(query);
        info
    }

    /// Watches, logs, streams and proxied requests: they may take as long as they want (upstream's
    /// `BasicLongRunningRequestCheck`).
    pub fn long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    pub fn mutates(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// A get or delete without a name means many.
    fn refine(&mut self, query: &Query) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb.as_str() {
            "get" => {
                self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
                self.name = exact_name(query.text("fieldSelector")).unwrap_or_default();
            }
            "delete" => self.verb = "deletecollection".to_owned(),
            _ => {}
        }
    }
}

/// The name a field selector demands: authorizers treat `list` with it as about that object.
fn exact_name(selector: &str) -> Option<String> {
    let value = selector.split(',').find_map(|term| {
        let (key, value) = term.split_once('=')?;
        (key == "metadata.name").then(|| value.trim_start_matches('='))
    })?;
    let valid = !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '%']);
    valid.then(|| value.to_owned())
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_upstream_says() {
        let cases = [
            ("GET", "/api/v1/namespaces", "list", "", "namespaces", "", ""),
            ("GET", "/api/v1/namespaces/other", "get", "other", "namespaces", "other", ""),
            ("PUT", "/api/v1/namespaces/other/finalize", "update", "other", "namespaces", "other", "finalize"),
            ("GET", "/api/v1/namespaces/other/pods", "list", "other", "pods", "", ""),
            ("GET", "/api/v1/namespaces/other/pods/foo/log", "get", "other", "pods", "foo", "log"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection", "a", "deployments", "", ""),
            ("GET", "/api/v1/pods?watch=true", "watch", "", "pods", "", ""),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch", "a", "pods", "", ""),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list", "", "pods", "x", ""),
            ("POST", "/api/v1/nodes/n/proxy/x/y", "create", "", "nodes", "n", "proxy"),
        ];
        for (method, url, verb, namespace, resource, name, subresource) in cases {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let info = RequestInfo::parse(&Method::from_bytes(method.as_bytes()).unwrap_or_default(), path, &Query::parse(query));
            assert!(info.is_resource, "{url}");
            let got = (info.verb.as_str(), info.namespace.as_str(), info.resource.as_str(), info.name.as_str(), info.subresource.as_str());
            assert_eq!(got, (verb, namespace, resource, name, subresource), "{method} {url}");
        }
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz/x/y", "/api/v1/watch"] {
            assert!(!RequestInfo::parse(&Method::GET, path, &Query::default()).is_resource, "{path}");
        }
    }
}
