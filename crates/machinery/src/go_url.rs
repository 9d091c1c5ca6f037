//! URLs as Go 1.26's `net/url` takes them apart, with its errors: what it refuses, upstream refuses. Called by the `uri` format
//! of schemas and the URL functions of CEL. It neither resolves references nor writes URLs.

use std::net::Ipv6Addr;

use crate::field::go_quote;

/// The parts of a URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    /// What follows a scheme without a slash: `a@b` of `mailto:a@b`.
    pub opaque: String,
    /// With its port.
    pub host: String,
    /// As written.
    raw_path: String,
    pub query: String,
}

/// What is unescaped; each part has its own rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    User,
    Query,
    Fragment,
}

impl Url {
    /// `url.ParseRequestURI`: an absolute URL, or an absolute path; a fragment is not told apart.
    pub fn parse_request_uri(text: &str) -> Result<Self, String> {
        parse(text, true).map_err(|why| format!("parse {}: {why}", go_quote(text)))
    }

    /// `url.Parse`: also relative references.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let url = parse(before, false).map_err(|why| format!("parse {}: {why}", go_quote(before)))?;
        unescape(fragment, Part::Fragment).map_err(|why| format!("parse {}: {why}", go_quote(text)))?;
        Ok(url)
    }

    pub fn hostname(&self) -> &str {
        let host = self.split_port().0;
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    pub fn port(&self) -> &str {
        self.split_port().1
    }

    fn split_port(&self) -> (&str, &str) {
        match self.host.rfind(':') {
            Some(colon) if is_optional_port(&self.host[colon..]) => (&self.host[..colon], &self.host[colon + 1..]),
            _ => (&self.host, ""),
        }
    }

    /// `EscapedPath`: as it was written, if that is a way to write it.
    pub fn escaped_path(&self) -> String {
        let raw = self.raw_path.as_str();
        if raw == "*" || raw.bytes().all(|b| b"!$&'()*+,;=:@[]%".contains(&b) || !must_escape(b, Part::Path)) {
            return raw.to_owned();
        }
        let mut out = String::with_capacity(raw.len() + 8);
        for b in unescape(raw, Part::Path).unwrap_or_default() {
            if must_escape(b, Part::Path) {
                out.push_str(&format!("%{b:02X}"));
            } else {
                out.push(char::from(b));
            }
        }
        out
    }

    /// `Query`: keys with their values, in order; what is malformed is left out.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        let text = |part: &str| unescape(part, Part::Query).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        pairs.filter_map(|pair| pair.split_once('=').or(Some((pair, ""))).and_then(|(k, v)| Some((text(k)?, text(v)?)))).collect()
    }
}

fn parse(text: &str, via_request: bool) -> Result<Url, String> {
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if text.is_empty() && via_request {
        return Err("empty url".to_owned());
    }
    let mut url = Url::default();
    if text == "*" {
        text.clone_into(&mut url.raw_path);
        return Ok(url);
    }
    let (scheme, rest) = scheme(text)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    query.clone_into(&mut url.query);
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            rest.clone_into(&mut url.opaque);
            return Ok(url);
        }
        if via_request {
            return Err("invalid URI for request".to_owned());
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let has_authority = !url.scheme.is_empty() || (!via_request && !rest.starts_with("///"));
    let path = match rest.strip_prefix("//").filter(|_| has_authority) {
        Some(after) => {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            url.host = parse_authority(&url.scheme, authority)?;
            path
        }
        None => rest,
    };
    unescape(path, Part::Path)?;
    path.clone_into(&mut url.raw_path);
    Ok(url)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// The host and port of an authority, whose user must be well formed.
fn parse_authority(scheme: &str, authority: &str) -> Result<String, String> {
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let host = parse_host(scheme, host)?;
    if let Some(user) = user {
        if !user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b)) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        unescape(name, Part::User)?;
        unescape(password, Part::User)?;
    }
    Ok(host)
}

fn parse_host(scheme: &str, host: &str) -> Result<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let port_error = |port: &str| format!("invalid port {} after host", go_quote(port));
    match host.rfind('[') {
        Some(0) => {
            let Some(close) = host.rfind(']') else { return Err("missing ']' in host".to_owned()) };
            let port = &host[close + 1..];
            if !is_optional_port(port) {
                return Err(port_error(port));
            }
            let inner = &host[1..close];
            let (address, zone) = inner.split_at(inner.find("%25").unwrap_or(inner.len()));
            let (address, zone) = (text(unescape(address, Part::Host)?), text(unescape(zone, Part::Zone)?));
            if let Some(why) = not_bracketed(&address, &zone) {
                return Err(why);
            }
            return Ok(format!("[{address}{zone}]{port}"));
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    if let Some(first) = host.find(':') {
        // PostgreSQL's lists of hosts have colons elsewhere, too.
        let lists = matches!(scheme, "postgresql" | "postgres");
        let port = &host[if lists { host.rfind(':').unwrap_or(first) } else { first }..];
        if !is_optional_port(port) {
            return Err(port_error(port));
        }
    }
    unescape(host, Part::Host).map(text)
}

/// Why an address may not stand in brackets: only those of IPv6 may. The words are `netip`'s.
fn not_bracketed(address: &str, zone: &str) -> Option<String> {
    let whole = format!("{address}{zone}");
    if whole.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("invalid IP-literal".to_owned());
    }
    if zone == "%" {
        return Some(format!("invalid host: ParseAddr({}): zone must be a non-empty string", go_quote(&whole)));
    }
    if address.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    let why = if address.contains(':') || address.contains('.') { "unexpected character" } else { "unable to parse IP" };
    Some(format!("invalid host: ParseAddr({}): {why}", go_quote(&whole)))
}

/// Nothing, or a colon and digits.
fn is_optional_port(port: &str) -> bool {
    port.strip_prefix(':').map_or(port.is_empty(), |digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn must_escape(b: u8, part: Part) -> bool {
    if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
        return false;
    }
    match part {
        Part::Host | Part::Zone => !b"!$&'()*+,;=:[]<>\"".contains(&b),
        Part::Path => !b"$&+,/:;=@".contains(&b),
        Part::User => !b"$&+,;=".contains(&b),
        Part::Fragment => !b"$&+,/:;=?@!()*".contains(&b),
        Part::Query => true,
    }
}

fn unescape(text: &str, part: Part) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let escape = |at: usize| format!("invalid URL escape {}", go_quote(&String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)])));
    let in_host = matches!(part, Part::Host | Part::Zone);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        if *b == b'%' {
            let digits = bytes.get(at + 1..at + 3).and_then(|d| std::str::from_utf8(d).ok()).filter(|d| !d.starts_with('+'));
            let Some(value) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else { return Err(escape(at)) };
            let percent = &bytes[at..at + 3] == b"%25";
            let refused = match part {
                // Hosts escape what is not ASCII, and nothing else.
                Part::Host => value < 0x80 && !percent,
                Part::Zone => !percent && value != b' ' && must_escape(value, Part::Host),
                _ => false,
            };
            if refused {
                return Err(escape(at));
            }
            out.push(value);
            at += 3;
            continue;
        }
        if in_host && b.is_ascii() && must_escape(*b, part) {
            return Err(format!("invalid character {} in host name", go_quote(&char::from(*b).to_string())));
        }
        out.push(if *b == b'+' && part == Part::Query { b' ' } else { *b });
        at += 1;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn request_uris_are_taken_or_refused_as_go_does() {
        for text in [
            "http://www.google.com",
            "http://www.google.com/",
            "http://www.google.com/file%20one%26two",
            "ftp://webmaster@www.google.com/",
            "ftp://john%20doe@www.google.com/",
            "http://www.google.com/?",
            "http://www.google.com/?foo=bar?",
            "http://www.google.com/?q=go+language#frag%zz",
            "http://www.google.com/a%20b?q=c+d",
            "http:www.google.com/?q=go+language",
            "mailto:/webmaster@golang.org",
            "mailto:webmaster@golang.org",
            "mailto:a b",
            "/foo?query=http://bad",
            "//foo",
            "///threeslashes",
            "http://user:password@google.com",
            "http://j@ne:password@google.com",
            "http://jane:p@ssword@google.com/p@th?q=@go",
            "http://192.168.0.1/",
            "http://192.168.0.1:8080/",
            "http://[fe80::1]/",
            "http://[fe80::1]:8080/",
            "http://[fe80::1%25en0]/",
            "http://[fe80::1%25en0]:8080/",
            "http://[fe80::1%25%65%6e%301-._~]/",
            "http://[::ffff:1.2.3.4]/",
            "http://a:/",
            "http://:80/",
            "http://",
            "http:///x",
            "http://hello.%e4%b8%96%e7%95%8c.com/foo",
            "http://hello.世界.com/foo",
            "/foo bar",
            "/%41",
            "*",
            "a:b",
            "urn:isbn:0451450523",
            "magnet:?xt=urn:btih:c12fe",
            "myscheme://authority<\"hi\">/foo",
            "postgres://a:1,b:2/db",
            "foo+bar.x-1:z",
            "http://a_b.c/",
            "http://!$&'()*+,;=hello!:1/path",
            "data:,",
        ] {
            assert!(Url::parse_request_uri(text).is_ok(), "{text}: {:?}", Url::parse_request_uri(text));
        }
        for (text, why) in [
            ("", "empty url"),
            ("foo.html", "invalid URI for request"),
            ("../dir/", "invalid URI for request"),
            ("www.google.com/x", "invalid URI for request"),
            (" http://a", "invalid URI for request"),
            (" http://foo.com", "invalid URI for request"),
            ("1http://a", "invalid URI for request"),
            (":a", "missing protocol scheme"),
            ("http://192.168.0.%31/", "invalid URL escape \"%31\""),
            ("http://192.168.0.%31:8080/", "invalid URL escape \"%31\""),
            ("http://[fe80::%31]/", "invalid URL escape \"%31\""),
            ("http://[fe80::%31%25en0]/", "invalid URL escape \"%31\""),
            ("http://%41:8080/", "invalid URL escape \"%41\""),
            ("/%zz", "invalid URL escape \"%zz\""),
            ("/%a", "invalid URL escape \"%a\""),
            ("/%", "invalid URL escape \"%\""),
            ("/%+1", "invalid URL escape \"%+1\""),
            ("http://a b.com/", "invalid character \" \" in host name"),
            ("http://a{b}/", "invalid character \"{\" in host name"),
            ("http://a|b/", "invalid character \"|\" in host name"),
            ("http://a\\b/", "invalid character \"\\\\\" in host name"),
            ("http://a:x/", "invalid port \":x\" after host"),
            ("http://a:1:2/", "invalid port \":1:2\" after host"),
            ("http://::1/", "invalid port \"::1\" after host"),
            ("http://[::1", "missing ']' in host"),
            ("http://[::1]x/", "invalid port \"x\" after host"),
            ("http://[::1]:x/", "invalid port \":x\" after host"),
            ("http://a[::1]/", "invalid IP-literal"),
            ("http://[1.2.3.4]/", "invalid IP-literal"),
            ("http://[]/", "invalid host: ParseAddr(\"\"): unable to parse IP"),
            ("http://[a]/", "invalid host: ParseAddr(\"a\"): unable to parse IP"),
            ("http://us\ner@a/", "net/url: invalid control character in URL"),
            ("http://us er@a/", "net/url: invalid userinfo"),
            ("http://%zz@a/", "invalid URL escape \"%zz\""),
            ("http://a\u{7f}/", "net/url: invalid control character in URL"),
        ] {
            let found = Url::parse_request_uri(text);
            assert_eq!(found.unwrap_err(), format!("parse {}: {why}", go_quote(text)), "{text}");
        }
    }

    #[test]
    fn parts_are_gos() {
        let url = Url::parse("https://u:p@Example.com:8443/a%20b/(c)?x=1&y=a+b&x=2&%zz=3&a;b=c#frag").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.host.as_str(), url.hostname(), url.port()),
            ("https", "Example.com:8443", "Example.com", "8443")
        );
        assert_eq!(url.escaped_path(), "/a%20b/(c)");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(url.query_pairs(), [pair("x", "1"), pair("y", "a b"), pair("x", "2")]);
        for (text, host, port, path) in [
            ("http://[::1]:80/", "::1", "80", "/"),
            ("http://[::1%25lo]/", "::1%lo", "", "/"),
            ("http://a:/x y(z)", "a", "", "/x%20y%28z%29"),
            ("mailto:a@b", "", "", ""),
            ("/a?b", "", "", "/a"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.hostname(), url.port(), url.escaped_path().as_str()), (host, port, path), "{text}");
        }
        assert_eq!(Url::parse("a:b/c:d").unwrap().opaque, "b/c:d");
        assert!(Url::parse("1:b/c").unwrap_err().ends_with("first path segment in URL cannot contain colon"));
        assert!(Url::parse("a/b#%zz").is_err() && Url::parse("").is_ok());
    }

    proptest! {
        #[test]
        fn anything_may_come(text in any::<String>(), part in "[a-z:/@%\\[\\]?#.0-9 +;&=]{0,30}") {
            for text in [&text, &part] {
                if let Ok(url) = Url::parse(text) {
                    let _ = (url.hostname(), url.port(), url.escaped_path(), url.query_pairs());
                }
                let _ = Url::parse_request_uri(text).is_ok();
            }
        }
    }
}
