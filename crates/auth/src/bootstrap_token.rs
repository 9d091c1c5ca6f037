//! Bootstrap tokens: `id.secret`, known by a Secret in kube-system (upstream's `plugin/pkg/auth/authenticator/token/bootstrap` and
//! `cluster-bootstrap`). The API server finds the Secret; whether it vouches for the token, and for whom, is decided here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinery::object::str_at;
use serde_json::Value;

use crate::user::User;

pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
pub const SECRET_PREFIX: &str = "bootstrap-token-";
const GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Id and secret of a token that is written as one.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH)).then_some((id, secret))
}

/// A datum of a Secret, decoded.
pub fn datum(secret: &Value, key: &str) -> Option<String> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// Whether a token's Secret is past its time; one that does not read as a time is.
pub fn expired(secret: &Value, now_seconds: i64) -> bool {
    match datum(secret, "expiration").filter(|e| !e.is_empty()) {
        None => false,
        Some(text) => machinery::time::parse(&text).is_none_or(|until| until <= now_seconds),
    }
}

/// Who the holder of `id.secret` is, if the Secret of that id says so.
pub fn authenticate(secret: &Value, id: &str, given: &str, now_seconds: i64) -> Option<User> {
    let is_token = str_at(secret, "type") == SECRET_TYPE && secret.pointer("/metadata/deletionTimestamp").is_none_or(Value::is_null);
    let wanted = datum(secret, "token-secret").filter(|s| !s.is_empty())?;
    if !is_token || !same(wanted.as_bytes(), given.as_bytes()) || datum(secret, "token-id")? != id {
        return None;
    }
    if expired(secret, now_seconds) || datum(secret, "usage-bootstrap-authentication")? != "true" {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    if let Some(more) = datum(secret, "auth-extra-groups").filter(|g| !g.is_empty()) {
        for group in more.split(',') {
            if !is_bootstrap_group(group) {
                return None;
            }
            groups.push(group.to_owned());
        }
    }
    groups.sort();
    groups.dedup();
    Some(User::new(format!("system:bootstrap:{id}"), &groups.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// `system:bootstrappers:` and up to 256 letters, digits, colons and dashes that do not end in one of the latter.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256 && rest.bytes().last().is_some_and(inner) && rest.bytes().all(|b| inner(b) || b == b':' || b == b'-')
}

/// Compares secrets in a time that depends on their lengths alone.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0_u8, |all, (x, y)| std::hint::black_box(all | (x ^ y)));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(more: &[(&str, &str)]) -> Value {
        let mut data: serde_json::Map<String, Value> = serde_json::Map::new();
        let usual = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true")];
        for (key, value) in usual.iter().chain(more) {
            data.insert((*key).to_owned(), json!(STANDARD.encode(value)));
        }
        json!({"type": SECRET_TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": data})
    }

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let at = |text: &str| machinery::time::parse(text).unwrap();
        let now = at("2026-01-01T00:00:00Z");
        let ask = |s: &Value| authenticate(s, "abcdef", "0123456789abcdef", now);
        let user = ask(&secret(&[("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a")])).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b", "system:authenticated"]);
        assert!(ask(&secret(&[("expiration", "2026-01-01T00:00:01Z")])).is_some());
        for more in [
            ("expiration", "2025-12-31T23:59:59Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:a,"),
            ("auth-extra-groups", "system:bootstrappers:A"),
            ("usage-bootstrap-authentication", "false"),
            ("token-id", "zzzzzz"),
            ("token-secret", "0123456789abcdeg"),
        ] {
            assert!(ask(&secret(&[more])).is_none(), "{more:?}");
        }
        let mut other = secret(&[]);
        other["type"] = json!("Opaque");
        assert!(ask(&other).is_none());
        let mut going = secret(&[]);
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(ask(&going).is_none());
    }

    #[test]
    fn only_tokens_read_as_tokens() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for bad in
            ["", ".", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdef.x", "äbcde.0123456789abcdef"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
