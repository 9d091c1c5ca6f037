//! URLs: `url('https://x/y').getHost()`.

use std::sync::Arc;

use machinery::go_url::Url;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("url", make, &[("string_to_url", "(string) -> URL")]),
    ("isURL", |_, a| Ok(Value::Bool(Url::parse_request_uri(str_arg(&a[0])?).is_ok())), &[("is_url_string", "(string) -> bool")]),
    ("getScheme", |_, a| text(a, |u| u.scheme.clone()), &[("url_get_scheme", "URL.() -> string")]),
    ("getHost", |_, a| text(a, |u| u.host.clone()), &[("url_get_host", "URL.() -> string")]),
    ("getHostname", |_, a| text(a, |u| u.hostname().to_owned()), &[("url_get_hostname", "URL.() -> string")]),
    ("getPort", |_, a| text(a, |u| u.port().to_owned()), &[("url_get_port", "URL.() -> string")]),
    ("getEscapedPath", |_, a| text(a, Url::escaped_path), &[("url_get_escaped_path", "URL.() -> string")]),
    ("getQuery", query, &[("url_get_query", "URL.() -> map(string, list(string))")]),
];

fn make<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let given = str_arg(&args[0])?;
    // The first reading takes a fragment for a part of what is before it.
    let url = Url::parse_request_uri(given)
        .and_then(|_| Url::parse(given))
        .map_err(|why| EvalError::new(format!("URL parse error during conversion from string: {why}")))?;
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
    for (key, value) in url(&args[0])?.query_pairs() {
        out.entry(key).or_default().push(Value::string(value));
    }
    Ok(Value::map(out.into_iter().map(|(k, v)| (k, Value::list(v)))))
}
