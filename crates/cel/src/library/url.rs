//! URLs: `url('https://x/y').getHost()`.

use std::sync::Arc;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("url", make, &[("string_to_url", "(string) -> URL")]),
    ("isURL", |_, a| Ok(Value::Bool(Url::parse(str_arg(&a[0])?).is_ok())), &[("is_url_string", "(string) -> bool")]),
    ("getScheme", |_, a| text(a, |u| u.scheme.clone()), &[("url_get_scheme", "URL.() -> string")]),
    ("getHost", |_, a| text(a, |u| u.host.clone()), &[("url_get_host", "URL.() -> string")]),
    ("getHostname", |_, a| text(a, |u| u.hostname().to_owned()), &[("url_get_hostname", "URL.() -> string")]),
    ("getPort", |_, a| text(a, |u| u.port().to_owned()), &[("url_get_port", "URL.() -> string")]),
    ("getEscapedPath", |_, a| text(a, |u| u.path.clone()), &[("url_get_escaped_path", "URL.() -> string")]),
    ("getQuery", query, &[("url_get_query", "URL.() -> map(string, list(string))")]),
];

/// An absolute URL or path, as Go's `url.ParseRequestURI` takes one apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    pub host: String,
    /// As written.
    pub path: String,
    pub query: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return fail("empty url");
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return fail("net/url: invalid control character in URL");
        }
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            Some(("", _)) => return fail("missing protocol scheme"),
            _ => (String::new(), text),
        };
        if scheme.is_empty() && !rest.starts_with('/') {
            return fail("invalid URI for request");
        }
        if !scheme.is_empty() && !rest.starts_with('/') {
            return fail("invalid URI for request");
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///"));
        let (host, path) = match authority {
            Some(rest) => rest.find('/').map_or((rest, ""), |i| rest.split_at(i)),
            None => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, h)| h);
        if let Some(why) = bad_host(host) {
            return fail(&why);
        }
        if let Some(escape) = bad_escape(path) {
            return fail(&format!("invalid URL escape {escape:?}"));
        }
        Ok(Self { scheme, host: host.to_owned(), path: escape_path(path), query: query.to_owned() })
    }

    pub fn hostname(&self) -> &str {
        let host = self.split_port().0;
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    pub fn port(&self) -> &str {
        self.split_port().1
    }

    fn split_port(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (&self.host, ""),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn bad_host(host: &str) -> Option<String> {
    if host.starts_with('[') && !host.contains(']') {
        return Some("missing ']' in host".to_owned());
    }
    let bad = host.chars().find(|c| matches!(c, ' ' | '<' | '>' | '"' | '\\' | '^' | '`' | '{' | '}' | '|'));
    if let Some(bad) = bad {
        return Some(format!("invalid character {:?} in host name", bad.to_string()));
    }
    let after = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let port = after.split_once(':').map(|(_, port)| port)?;
    (!port.bytes().all(|b| b.is_ascii_digit())).then(|| format!("invalid port \":{port}\" after host"))
}

fn bad_escape(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'%').find_map(|(i, _)| {
        let digits = bytes.get(i + 1..i + 3).unwrap_or_default();
        let valid = digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit);
        (!valid).then(|| String::from_utf8_lossy(&bytes[i..bytes.len().min(i + 3)]).into_owned())
    })
}

fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(b) = bytes.get(i) {
        match b {
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(i + 1..i + 3)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                i += 3;
                continue;
            }
            b'+' => out.push(b' '),
            other => out.push(*other),
        }
        i += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn make<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let url =
        Url::parse(str_arg(&args[0])?).map_err(|why| EvalError::new(format!("URL parse error during conversion from string: {why}")))?;
    Ok(Value::Opaque(Opaque::Url(Arc::new(url))))
}

fn url<'v>(value: &'v Value<'_>) -> Result<&'v Url, EvalError> {
    match value {
        Value::Opaque(Opaque::Url(url)) => Ok(url),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn text<'a>(args: &[Value<'a>], of: fn(&Url) -> String) -> Outcome<'a> {
    Ok(Value::string(of(url(&args[0])?)))
}

fn query<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let mut out: std::collections::BTreeMap<String, Vec<Value<'a>>> = std::collections::BTreeMap::new();
    for pair in url(&args[0])?.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
            out.entry(key).or_default().push(Value::string(value));
        }
    }
    Ok(Value::map(out.into_iter().map(|(k, v)| (k, Value::list(v)))))
}
