//! `Impersonate-*` headers: acting as somebody else, where one may (upstream's `WithImpersonation`).

use std::collections::BTreeMap;

use auth::{Attributes, User, user};
use http::HeaderMap;
use machinery::field::go_quote;
use machinery::status::StatusError;

use crate::authz;
use crate::http::query::decode;
use crate::state::Api;

const EXTRA: &str = "impersonate-extra-";

/// The user to act as; the headers are removed.
pub async fn impersonate(api: &Api, real: User, headers: &mut HeaderMap) -> Result<User, StatusError> {
    if !headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Ok(real);
    }
    let texts = |name: &str| -> Vec<String> { headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect() };
    let name = texts("impersonate-user").into_iter().next().unwrap_or_default();
    let groups = texts("impersonate-group");
    let uid = texts("impersonate-uid").into_iter().next().unwrap_or_default();
    let mut extra: Vec<(String, String)> = Vec::new();
    for (key, value) in headers.iter() {
        if let (Some(key), Ok(value)) = (key.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.push((decode(key, false).unwrap_or_else(|| key.to_owned()), value.to_owned()));
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(real);
        }
        let who = without_user(&groups, &uid, &extra);
        return Err(StatusError::bad_request(format!("requested {who} without impersonating a user name")));
    }
    may_impersonate(api, &real, &name, &groups, &uid, &extra).await?;
    let mut as_user = identity(name, groups);
    as_user.uid = uid;
    for (key, value) in extra {
        as_user.extra.entry(key).or_default().push(value);
    }
    let names: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(as_user)
}

/// Who was asked for without a name, as Go prints it: extra keys in the order of their letters.
fn without_user(groups: &[String], uid: &str, extra: &[(String, String)]) -> String {
    let list = |texts: &[&str]| format!("[]string{{{}}}", texts.iter().map(|t| go_quote(t)).collect::<Vec<_>>().join(", "));
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let groups = if groups.is_empty() { "[]string(nil)".to_owned() } else { list(&groups) };
    let mut by_key: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in extra {
        by_key.entry(key).or_default().push(value);
    }
    let extra = if by_key.is_empty() {
        "(nil)".to_owned()
    } else {
        let entries: Vec<String> = by_key.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
        format!("{{{}}}", entries.join(", "))
    };
    format!("&user.DefaultInfo{{Name:\"\", UID:{}, Groups:{groups}, Extra:map[string][]string{extra}}}", go_quote(uid))
}

/// The groups the impersonated user gets when none were named, and those everybody has.
fn identity(name: String, groups: Vec<String>) -> User {
    let mut user = User { name, groups, ..User::default() };
    if user.groups.is_empty()
        && let Some((namespace, _)) = user.as_service_account()
    {
        user.groups = vec![user::SERVICE_ACCOUNTS.to_owned(), format!("{}:{namespace}", user::SERVICE_ACCOUNTS)];
    }
    let own = if user.name == user::ANONYMOUS { user::UNAUTHENTICATED } else { user::AUTHENTICATED };
    if !user.in_group(user::AUTHENTICATED) && !user.in_group(user::UNAUTHENTICATED) {
        user.groups.push(own.to_owned());
    }
    user
}

async fn may_impersonate(
    api: &Api,
    real: &User,
    name: &str,
    groups: &[String],
    uid: &str,
    extra: &[(String, String)],
) -> Result<(), StatusError> {
    let base = Attributes {
        user: real.clone(),
        verb: "impersonate".to_owned(),
        is_resource: true,
        version: "v1".to_owned(),
        ..Attributes::default()
    };
    let mut asked: Vec<Attributes> = Vec::new();
    let account = User { name: name.to_owned(), ..User::default() };
    asked.push(match account.as_service_account() {
        Some((namespace, name)) => {
            Attributes { resource: "serviceaccounts".into(), namespace: namespace.into(), name: name.into(), ..base.clone() }
        }
        None => Attributes { resource: "users".into(), name: name.into(), ..base.clone() },
    });
    asked.extend(groups.iter().map(|g| Attributes { resource: "groups".into(), name: g.clone(), ..base.clone() }));
    let other = Attributes { group: "authentication.k8s.io".into(), ..base };
    asked.extend(extra.iter().map(|(key, value)| Attributes {
        resource: "userextras".into(),
        subresource: key.clone(),
        name: value.clone(),
        ..other.clone()
    }));
    if !uid.is_empty() {
        asked.push(Attributes { resource: "uids".into(), name: uid.into(), ..other });
    }
    for attributes in asked {
        authz::require(&api.authorizer, &attributes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn a_nameless_user_is_shown_as_go_prints_it() {
        let nil = "&user.DefaultInfo{Name:\"\", UID:\"x\", Groups:[]string(nil), Extra:map[string][]string(nil)}";
        assert_eq!(without_user(&[], "x", &[]), nil);
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let extra = [pair("b", "1"), pair("a", "2"), pair("b", "3")];
        let full = "&user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\", \"h\"}, Extra:map[string][]string{\"a\":[]string{\"2\"}, \"b\":[]string{\"1\", \"3\"}}}";
        assert_eq!(without_user(&["g".to_owned(), "h".to_owned()], "", &extra), full);
    }
}
