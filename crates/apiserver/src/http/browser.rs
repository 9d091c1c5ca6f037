//! What browsers are told beside an answer: which other sites' pages may read it (CORS), and to come by TLS alone (HSTS).
//! Nothing, unless configured. Called where connections are served, before anybody is asked who they are.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN, STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::Config;
use crate::error::{Error, Result};

type Matches = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Of a page that may read the answer.
const CORS: [(HeaderName, &str); 4] = [
    (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
    ),
    (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
];

#[derive(Default)]
pub struct Browsers {
    origins: Vec<Matches>,
    hsts: Option<HeaderValue>,
}

impl Browsers {
    pub fn new(config: &Config) -> Result<Self> {
        let origin = |pattern: &String| {
            let failed = |why: &str| Error::Config(format!("--cors-allowed-origins has an invalid regular expression: {pattern}: {why}"));
            // Otherwise `good.example` lets `good.example.evil.example` in.
            if !(pattern.starts_with('^') || pattern.starts_with("//")) || !(pattern.ends_with('$') || pattern.ends_with(':')) {
                return Err(failed("does not pin to start/end of host in the origin header"));
            }
            let compiled = machinery::re2::compile(pattern).map_err(|why| failed(&why))?;
            Ok(Box::new(move |origin: &str| compiled.is_match(origin)) as Matches)
        };
        Ok(Self {
            origins: config.cors_allowed_origins.iter().map(origin).collect::<Result<_>>()?,
            hsts: hsts(&config.strict_transport_security_directives)?,
        })
    }

    /// Whether there is nothing to say, ever.
    pub fn is_idle(&self) -> bool {
        self.origins.is_empty() && self.hsts.is_none()
    }

    /// The page's site, if it may read answers.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|matches| matches(text)).then(|| origin.clone())
    }

    /// A question whether a page may ask: answered at once.
    pub fn is_preflight(origin: Option<&HeaderValue>, method: &Method) -> bool {
        origin.is_some() && *method == Method::OPTIONS
    }

    pub fn tell(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            for (name, text) in CORS {
                headers.insert(name, HeaderValue::from_static(text));
            }
        }
        if let Some(hsts) = &self.hsts {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
    }
}

/// One header of all directives.
fn hsts(directives: &[String]) -> Result<Option<HeaderValue>> {
    let known = |d: &str| {
        matches!(d, "includeSubDomains" | "preload") || d.strip_prefix("max-age=").is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    };
    if directives.iter().any(|d| !known(d)) {
        return Err(Error::Config(
            "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. see \
             https://tools.ietf.org/html/rfc6797#section-6.1 for more information"
                .to_owned(),
        ));
    }
    if directives.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&directives.join("; ")).map(Some).map_err(|e| Error::Config(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(origins: &[&str], directives: &[&str]) -> Result<Browsers> {
        let list = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect();
        let base = Config::new("/nowhere");
        Browsers::new(&Config { cors_allowed_origins: list(origins), strict_transport_security_directives: list(directives), ..base })
    }

    #[test]
    fn pages_of_named_sites_may_read() {
        let browsers = of(&["^https://a\\.example$", "//b\\.example:"], &["max-age=31536000", "includeSubDomains"]).unwrap();
        let origin = |text: &'static str| browsers.origin(&[(ORIGIN, HeaderValue::from_static(text))].into_iter().collect());
        assert!(origin("https://a.example").is_some() && origin("http://b.example:8080").is_some());
        assert!(origin("https://a.example.evil").is_none() && origin("null").is_none());
        let mut headers = HeaderMap::new();
        browsers.tell(origin("https://a.example"), &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=31536000; includeSubDomains");
        assert!(of(&[], &[]).unwrap().is_idle());
        for bad in ["a.example", "^a", "a$", "^($"] {
            assert!(of(&[bad], &[]).is_err(), "{bad}");
        }
        assert!(of(&[], &["max-age=soon"]).is_err() && of(&[], &["forever"]).is_err());
    }
}
