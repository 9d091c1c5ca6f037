//! `Impersonate-*` headers: acting as somebody else, where one may (upstream's `WithConstrainedImpersonation`). Here the headers
//! are read; who may be whom is in [`modes`].

mod modes;

use auth::{Attributes, User};
use http::HeaderMap;
use machinery::field::go_quote;
use machinery::status::StatusError;

use crate::http::query::decode;
use crate::state::Api;

const PREFIX: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";

/// The user to act as; the headers are removed. `asked` is the request, made by the real user.
pub async fn impersonate(api: &Api, asked: &Attributes, headers: &mut HeaderMap) -> Result<User, StatusError> {
    if !headers.keys().any(|k| k.as_str().starts_with(PREFIX)) {
        return Ok(asked.user.clone());
    }
    let Some(wanted) = wanted(headers)? else { return Ok(asked.user.clone()) };
    let known = |name: &str| matches!(name, "impersonate-user" | "impersonate-uid" | "impersonate-group") || name.starts_with(EXTRA);
    let names: Vec<_> = headers.keys().filter(|k| known(k.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    modes::impersonate(api, asked, &wanted).await
}

/// The user the headers describe, as they do; `None` without a name.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, StatusError> {
    // A header that cannot be read must not be passed over: the request would be somebody else's.
    let text = |value: &http::HeaderValue| {
        std::str::from_utf8(value.as_bytes())
            .map(str::to_owned)
            .map_err(|_| StatusError::bad_request("an impersonation header is not UTF-8"))
    };
    let texts = |name: &str| headers.get_all(name).iter().map(text).collect::<Result<Vec<String>, StatusError>>();
    let first = |name: &str| Ok::<_, StatusError>(texts(name)?.into_iter().next().unwrap_or_default());
    let mut user =
        User { name: first("impersonate-user")?, uid: first("impersonate-uid")?, groups: texts("impersonate-group")?, ..User::default() };
    for (key, value) in headers {
        if let Some(key) = key.as_str().strip_prefix(EXTRA) {
            let key = decode(key, false).unwrap_or_else(|| key.to_owned());
            user.extra.entry(key).or_default().push(text(value)?);
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    Err(StatusError::bad_request(format!("requested {} without impersonating a user name", without_user(&user))))
}

/// Who was asked for without a name, as Go prints it: extra keys in the order of their letters.
fn without_user(user: &User) -> String {
    let list = |texts: &[String]| format!("[]string{{{}}}", texts.iter().map(|t| go_quote(t)).collect::<Vec<_>>().join(", "));
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let entries: Vec<String> = user.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
    let extra = if entries.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", entries.join(", ")) };
    format!("&user.DefaultInfo{{Name:\"\", UID:{}, Groups:{groups}, Extra:map[string][]string{extra}}}", go_quote(&user.uid))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_nameless_user_is_shown_as_go_prints_it() {
        let nil = "&user.DefaultInfo{Name:\"\", UID:\"x\", Groups:[]string(nil), Extra:map[string][]string(nil)}";
        assert_eq!(without_user(&User { uid: "x".into(), ..User::default() }), nil);
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let extra = BTreeMap::from([("b".to_owned(), list(&["1", "3"])), ("a".to_owned(), list(&["2"]))]);
        let full = "&user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\", \"h\"}, Extra:map[string][]string{\"a\":[]string{\"2\"}, \"b\":[]string{\"1\", \"3\"}}}";
        assert_eq!(without_user(&User { groups: list(&["g", "h"]), extra, ..User::default() }), full);
    }

    #[test]
    fn headers_become_a_user_or_an_error_but_never_nobody() {
        let headers = |pairs: &[(&'static str, &[u8])]| {
            let mut map = HeaderMap::new();
            for (key, value) in pairs {
                map.append(*key, http::HeaderValue::from_bytes(value).unwrap());
            }
            map
        };
        let user = wanted(&headers(&[("impersonate-user", "jürgen".as_bytes()), ("impersonate-extra-a%2fb", b"x")])).unwrap().unwrap();
        assert_eq!((user.name.as_str(), &user.extra["a/b"]), ("jürgen", &vec!["x".to_owned()]));
        assert!(wanted(&headers(&[("impersonate-user", &[0xff])])).is_err());
        assert!(wanted(&headers(&[("impersonate-group", b"g")])).is_err());
        assert!(wanted(&headers(&[("impersonate-user", b"")])).unwrap().is_none());
    }
}
