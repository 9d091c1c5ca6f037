//! The name formats of `k8s.io/apimachinery/pkg/util/validation`, each with upstream's exact message.
//!
//! Every function answers the problems of a value, empty when there is none; the matchers are hand-written and allocate
//! nothing for a good value. Not here: addresses (`names_net`), label selectors, and where in an object a value stands.
//! Called by metadata validation and by the strategies of `kinds`.

use std::borrow::Cow;

/// What is wrong with a value; several rules may be broken at once.
pub type Problems = Vec<Cow<'static, str>>;

/// What random ends of names are made of (upstream's `rand.String`): no vowels, no digits that look like letters.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1123_SUBDOMAIN_UNDERSCORE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD_SUBDOMAIN: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_KEY: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const CONFIG_MAP_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const ENV_VAR_RELAXED: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HTTP_PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
const EMPTY: &str = "must be non-empty";

pub const DNS1123_LABEL_MAX: usize = 63;
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;

const fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn matches_label(s: &[u8]) -> bool {
    match s {
        [] => false,
        [first, .., last] => lower_alnum(*first) && lower_alnum(*last) && s.iter().all(|b| lower_alnum(*b) || *b == b'-'),
        [only] => lower_alnum(*only),
    }
}

/// Labels joined by dots.
fn matches_subdomain(s: &[u8]) -> bool {
    s.split(|b| *b == b'.').all(matches_label)
}

fn matches_subdomain_underscore(s: &[u8]) -> bool {
    s.split(|b| *b == b'.').all(|label| {
        let body = label.strip_prefix(b"_").unwrap_or(label);
        match body {
            [] => false,
            [first, .., last] => {
                lower_alnum(*first) && lower_alnum(*last) && body.iter().all(|b| lower_alnum(*b) || matches!(b, b'-' | b'_'))
            }
            [only] => lower_alnum(*only),
        }
    })
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn matches_qualified_part(s: &[u8]) -> bool {
    match s {
        [] => false,
        [first, .., last] => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && s.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        [only] => only.is_ascii_alphanumeric(),
    }
}

/// "must be no more than N characters", upstream's `MaxLenError`.
pub fn max_len(n: usize) -> Cow<'static, str> {
    Cow::Owned(format!("must be no more than {n} characters"))
}

/// Newer formats count bytes in words too.
pub fn max_bytes(n: usize) -> Cow<'static, str> {
    Cow::Owned(format!("must be no more than {n} bytes"))
}

/// "must be between LO and HI, inclusive".
pub fn inclusive_range(lo: i64, hi: i64) -> String {
    format!("must be between {lo} and {hi}, inclusive")
}

fn checked(value: &str, max: usize, good: bool, text: &'static str) -> Problems {
    if value.len() <= max && good {
        return Problems::new();
    }
    let mut out = Problems::new();
    if value.len() > max {
        out.push(max_len(max));
    }
    if !good {
        out.push(Cow::Borrowed(text));
    }
    out
}

pub fn dns1123_label(value: &str) -> Problems {
    let dots = matches_subdomain(value.as_bytes());
    checked(value, DNS1123_LABEL_MAX, matches_label(value.as_bytes()), if dots { "must not contain dots" } else { DNS1123_LABEL })
}

pub fn dns1123_subdomain(value: &str) -> Problems {
    checked(value, DNS1123_SUBDOMAIN_MAX, matches_subdomain(value.as_bytes()), DNS1123_SUBDOMAIN)
}

/// As [`dns1123_subdomain`], for the formats of declarative validation, which count bytes.
pub fn long_name(value: &str) -> Problems {
    bytes_worded(dns1123_subdomain(value), value.len() > DNS1123_SUBDOMAIN_MAX, DNS1123_SUBDOMAIN_MAX)
}

/// As [`dns1123_label`], for the formats of declarative validation, which count bytes.
pub fn short_name(value: &str) -> Problems {
    bytes_worded(dns1123_label(value), value.len() > DNS1123_LABEL_MAX, DNS1123_LABEL_MAX)
}

fn bytes_worded(mut problems: Problems, long: bool, max: usize) -> Problems {
    if long && let Some(first) = problems.first_mut() {
        *first = max_bytes(max);
    }
    problems
}

pub fn dns1123_subdomain_underscore(value: &str) -> Problems {
    checked(value, DNS1123_SUBDOMAIN_MAX, matches_subdomain_underscore(value.as_bytes()), DNS1123_SUBDOMAIN_UNDERSCORE)
}

pub fn dns1035_label(value: &str) -> Problems {
    let b = value.as_bytes();
    checked(value, DNS1123_LABEL_MAX, matches_label(b) && b.first().is_some_and(u8::is_ascii_lowercase), DNS1035_LABEL)
}

/// `*.example.com`
pub fn wildcard_dns1123_subdomain(value: &str) -> Problems {
    let good = value.strip_prefix("*.").is_some_and(|rest| matches_subdomain(rest.as_bytes()));
    checked(value, DNS1123_SUBDOMAIN_MAX, good, WILDCARD_SUBDOMAIN)
}

/// `[prefix/]name`: keys of labels and annotations, finalizers, resource names, condition types.
pub fn qualified_name(value: &str) -> Problems {
    let mut out = Problems::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, rest)) if rest.contains('/') => {
            out.push(Cow::Borrowed(LABEL_KEY));
            return out;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push(Cow::Owned(format!("prefix part {EMPTY}")));
            } else {
                out.extend(long_name(prefix).into_iter().map(|p| Cow::Owned(format!("prefix part {p}"))));
            }
            name
        }
    };
    if name.is_empty() {
        out.push(Cow::Owned(format!("name part {EMPTY}")));
    } else if name.len() > 63 {
        out.push(Cow::Owned("name part must be no more than 63 bytes".to_owned()));
    }
    if !matches_qualified_part(name.as_bytes()) {
        out.push(Cow::Borrowed(QUALIFIED_NAME_PART));
    }
    out
}

pub fn label_value(value: &str) -> Problems {
    let good = value.is_empty() || matches_qualified_part(value.as_bytes());
    if good && value.len() <= 63 {
        return Problems::new();
    }
    let mut out = Problems::new();
    if value.len() > 63 {
        out.push(max_bytes(63));
    }
    if !good {
        out.push(Cow::Borrowed(LABEL_VALUE));
    }
    out
}

/// At least two labels and a `DNS-1123` subdomain: `example.com`.
pub fn fully_qualified_name(value: &str) -> Problems {
    let problems = dns1123_subdomain(value);
    if problems.is_empty() && value.split('.').count() < 3 {
        return vec![Cow::Borrowed("should be a domain with at least three segments separated by dots")];
    }
    problems
}

/// A domain of at least two labels, a trailing dot allowed.
pub fn fully_qualified_domain_name(value: &str) -> Problems {
    let value = value.strip_suffix('.').unwrap_or(value);
    let problems = dns1123_subdomain(value);
    if !problems.is_empty() {
        return problems;
    }
    if value.split('.').count() < 2 {
        return vec![Cow::Borrowed("should be a domain with at least two segments separated by dots")];
    }
    value.split('.').flat_map(dns1123_label).collect()
}

/// `domain/path`, upstream's `IsDomainPrefixedPath`.
pub fn domain_prefixed_path(value: &str) -> Problems {
    let Some((host, path)) = value.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) else {
        return vec![Cow::Borrowed("must be a domain-prefixed path (such as \"acme.io/foo\")")];
    };
    if let Some(p) = dns1123_subdomain(host).into_iter().next() {
        return vec![p];
    }
    if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        return Problems::new();
    }
    vec![Cow::Borrowed(HTTP_PATH)]
}

pub fn c_identifier(value: &str) -> Problems {
    let mut bytes = value.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good { Problems::new() } else { vec![Cow::Borrowed(C_IDENTIFIER)] }
}

/// The relaxed rule, on by default: any printable ASCII but `=`.
pub fn env_var_name(value: &str) -> Problems {
    if value.is_empty() {
        return vec![Cow::Owned(format!("environment variable name {EMPTY}"))];
    }
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Problems::new();
    }
    vec![Cow::Borrowed(ENV_VAR_RELAXED)]
}

/// A key of a ConfigMap or a Secret.
pub fn config_map_key(value: &str) -> Problems {
    let good = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let mut out = checked(value, DNS1123_SUBDOMAIN_MAX, good, CONFIG_MAP_KEY);
    out.extend(dot_problems(value));
    out
}

/// `.`, `..` and names that start with `..` have a meaning in volumes.
fn dot_problems(value: &str) -> Option<Cow<'static, str>> {
    match value {
        "." => Some(Cow::Borrowed("must not be '.'")),
        ".." => Some(Cow::Borrowed("must not be '..'")),
        v if v.starts_with("..") => Some(Cow::Borrowed("must not start with '..'")),
        _ => None,
    }
}

pub fn http_header_name(value: &str) -> Problems {
    let good = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if good { Problems::new() } else { vec![Cow::Borrowed(HTTP_HEADER)] }
}

/// `93%`
pub fn percent(value: &str) -> Problems {
    let good = value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if good { Problems::new() } else { vec![Cow::Borrowed(PERCENT)] }
}

/// `IANA_SVC_NAME`: the name of a port.
pub fn port_name(value: &str) -> Problems {
    let mut out = Problems::new();
    if value.len() > 15 {
        out.push(max_len(15));
    }
    let b = value.as_bytes();
    if b.is_empty() || !b.iter().all(|b| lower_alnum(*b) || *b == b'-') {
        out.push(Cow::Borrowed("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"));
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        out.push(Cow::Borrowed("must contain at least one letter (a-z)"));
    }
    if value.contains("--") {
        out.push(Cow::Borrowed("must not contain consecutive hyphens"));
    }
    if b.first() == Some(&b'-') || b.last() == Some(&b'-') {
        out.push(Cow::Borrowed("must not begin or end with a hyphen"));
    }
    out
}

/// 1 to 65535.
pub fn port_number(port: i64) -> Problems {
    if (1..=65535).contains(&port) { Problems::new() } else { vec![Cow::Owned(inclusive_range(1, 65535))] }
}

/// User and group ids: 0 to 2^31-1.
pub fn unix_id(id: i64) -> Problems {
    if (0..=i64::from(i32::MAX)).contains(&id) { Problems::new() } else { vec![Cow::Owned(inclusive_range(0, i64::from(i32::MAX)))] }
}

/// A name that can stand in a URL path; `prefix` says that more will follow (`generateName`).
pub fn path_segment(value: &str, prefix: bool) -> Problems {
    let mut out = Problems::new();
    if !prefix && value == "." {
        return vec![Cow::Borrowed("may not be '.'")];
    }
    if !prefix && value == ".." {
        return vec![Cow::Borrowed("may not be '..'")];
    }
    if value.contains('/') {
        out.push(Cow::Borrowed("may not contain '/'"));
    }
    if value.contains('%') {
        out.push(Cow::Borrowed("may not contain '%'"));
    }
    out
}

/// A trailing dash of a `generateName` is followed by letters, so it is judged as one (`maskTrailingDash`).
pub fn mask_trailing_dash(name: &str) -> Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(rest) if name.len() > 1 && name.is_char_boundary(rest.len().saturating_sub(1)) => {
            Cow::Owned(format!("{}a", &rest[..rest.len() - 1]))
        }
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&str) -> Problems, good: &[&str], bad: &[&str]) {
        for value in good {
            assert!(rule(value).is_empty(), "{value:?}: {:?}", rule(value));
        }
        for value in bad {
            assert!(!rule(value).is_empty(), "{value:?} passed");
        }
    }

    #[test]
    fn formats() {
        let long = "a".repeat(64);
        check(dns1123_label, &["a", "0", "a-b", "0a0"], &["", "-", "a-", "-a", "A", "a.b", "a_b", &long]);
        check(dns1123_subdomain, &["a", "a.b", "a-b.c0", &long], &["", ".", "a.", ".a", "a..b", "a.-b", "A", &"a.".repeat(127)]);
        check(dns1123_subdomain_underscore, &["_a._b", "a_b"], &["_", "a_", "__a"]);
        check(dns1035_label, &["a", "a0", "a-0"], &["", "0a", "a-", "A", &long]);
        check(wildcard_dns1123_subdomain, &["*.a", "*.a.b"], &["*", "*a", "a.*", "*.*.a", "*."]);
        check(
            qualified_name,
            &["a", "A.b_c-d", "a.b/C", "1"],
            &["", "/", "a/", "/a", "A.b/c", "a/b/c", "-a", "a b", &long, &format!("{long}/{long}")],
        );
        check(label_value, &["", "a", "A_b.c-d"], &["-", "a-", "a b", &long]);
        check(config_map_key, &["a", ".a", "A_b.c-d"], &["", ".", "..", "..a", "a/b", "a b"]);
        check(env_var_name, &["a", "A B", "1", "a-b", "!"], &["", "a=b", "\t", "é"]);
        check(c_identifier, &["a", "_", "A1"], &["", "1a", "a-b"]);
        check(port_name, &["a", "a-1", "1a"], &["", "1", "-a", "a-", "a--b", "A", &"a".repeat(16)]);
        check(percent, &["0%", "100%"], &["", "%", "1", "-1%", "1.5%"]);
        check(domain_prefixed_path, &["a.io/b", "a/b/c"], &["a", "a/", "/a", "A/b", "a/b c"]);
        check(fully_qualified_name, &["a.b.c"], &["a", "a.b", "A.b.c"]);
        check(fully_qualified_domain_name, &["a.b", "a.b."], &["a", "a..b"]);
    }

    #[test]
    fn a_name_prefix_is_judged_as_if_more_follows() {
        assert_eq!(mask_trailing_dash("ab-"), "aa");
        assert_eq!(mask_trailing_dash("a-"), "a");
        assert_eq!(mask_trailing_dash("-"), "-");
        assert_eq!(mask_trailing_dash("é-"), "é-");
        assert_eq!(mask_trailing_dash("ab"), "ab");
    }
}
