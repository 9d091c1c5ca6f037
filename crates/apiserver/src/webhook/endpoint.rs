//! Where a webhook is and how it is trusted: upstream's `webhook.ClientConfig`.

use machinery::object::str_at;
use serde_json::Value;

use super::trust::{Identity, Trust};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `https://host[:port]`, and a path that may be empty.
    Url {
        host: String,
        port: u16,
        authority: String,
        path: String,
    },
    Service {
        namespace: String,
        name: String,
        port: u16,
        path: String,
    },
}

/// A server to call. Equal ones share their connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub place: Place,
    pub trust: Trust,
    pub identity: Option<Identity>,
    /// `Authorization: Bearer`.
    pub token: Option<String>,
    /// `Authorization: Basic`, where there is no token.
    pub login: Option<(String, String)>,
    /// What the certificate must be for, where that is not the host (`tls-server-name`).
    pub server_name: Option<String>,
}

impl Endpoint {
    /// By a URL, which must be `https`.
    pub fn url_of(text: &str, trust: Trust) -> Result<Self, String> {
        let Some((scheme, _)) = text.split_once("://") else { return Err(format!("parse {text:?}: invalid URI for request")) };
        if scheme != "https" {
            return Err(format!("invalid URL scheme {scheme:?}: only https is supported"));
        }
        let uri: http::Uri = text.parse().map_err(|e| format!("parse {text:?}: {e}"))?;
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(|| format!("parse {text:?}: no host in URL"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let place = Place::Url {
            host,
            port: authority.port_u16().unwrap_or(443),
            authority: authority.to_string(),
            path: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        };
        Ok(Self::new(place, trust))
    }

    pub fn service(namespace: &str, name: &str, port: u16, path: &str, trust: Trust) -> Self {
        let path = path.to_owned();
        Self::new(Place::Service { namespace: namespace.to_owned(), name: name.to_owned(), port, path }, trust)
    }

    pub fn new(place: Place, trust: Trust) -> Self {
        Self { place, trust, identity: None, token: None, login: None, server_name: None }
    }

    /// From a `clientConfig` of admission and conversion webhooks: `url` or `service`, and `caBundle`.
    pub fn from_client_config(config: &Value) -> Result<Self, String> {
        let bundle = str_at(config, "caBundle");
        let trust = if bundle.is_empty() { Trust::System } else { Trust::bundle_base64(bundle)? };
        let url = str_at(config, "url");
        if !url.is_empty() {
            return Self::url_of(url, trust);
        }
        let Some(service) = config.get("service").filter(|s| s.is_object()) else {
            return Err("webhook configuration must have either service or URL".to_owned());
        };
        let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
        let port = u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?;
        Ok(Self::service(str_at(service, "namespace"), str_at(service, "name"), port, str_at(service, "path"), trust))
    }

    /// As in `Host` and in errors.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Url { authority, .. } => authority.clone(),
            Place::Service { namespace, name, port, .. } => format!("{name}.{namespace}.svc:{port}"),
        }
    }

    /// Whom the certificate must be for.
    pub fn verified_name(&self) -> String {
        match (&self.server_name, &self.place) {
            (Some(name), _) => name.clone(),
            (None, Place::Url { host, .. }) => host.clone(),
            (None, Place::Service { namespace, name, .. }) => format!("{name}.{namespace}.svc"),
        }
    }

    /// Path and query, always with a leading slash.
    pub fn path(&self, query: &str) -> String {
        let (Place::Url { path, .. } | Place::Service { path, .. }) = &self.place;
        let slash = if path.starts_with('/') { "" } else { "/" };
        match (query.is_empty(), path.contains('?')) {
            (true, _) => format!("{slash}{path}"),
            (false, true) => format!("{slash}{path}&{query}"),
            (false, false) => format!("{slash}{path}?{query}"),
        }
    }

    pub fn url(&self, query: &str) -> String {
        format!("https://{}{}", self.authority(), self.path(query))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn client_configs_become_endpoints() {
        let at = |config: Value| Endpoint::from_client_config(&config);
        let by_service = at(json!({"service": {"namespace": "n", "name": "s", "path": "/mutate"}})).unwrap();
        assert_eq!(by_service.url("timeout=10s"), "https://s.n.svc:443/mutate?timeout=10s");
        assert_eq!((by_service.verified_name().as_str(), by_service.trust), ("s.n.svc", Trust::System));
        let by_url = at(json!({"url": "https://[::1]:8443/a?b=c"})).unwrap();
        assert_eq!(by_url.url("timeout=1s"), "https://[::1]:8443/a?b=c&timeout=1s");
        assert_eq!(by_url.verified_name(), "::1");
        assert_eq!(at(json!({"url": "https://h.example"})).unwrap().url(""), "https://h.example/");
        for bad in [json!({}), json!({"url": "http://h/"}), json!({"url": "https://u:p@h/"}), json!({"url": "h"})] {
            assert!(at(bad.clone()).is_err(), "{bad}");
        }
        assert!(at(json!({"url": "https://h/", "caBundle": "bm8="})).is_err(), "no certificate in the bundle");
    }
}
