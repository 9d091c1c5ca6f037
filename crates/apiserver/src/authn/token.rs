//! ServiceAccount tokens: ours by signature, in time, for our audience, and bound to things that still exist.

use auth::User;
use machinery::object::{self, str_at};
use serde_json::Value;

use crate::state::Api;

/// A token's user and the audiences it is good for.
pub struct Found {
    pub user: User,
    pub audiences: Vec<String>,
}

/// `None` where the token is not valid for any of `audiences`.
pub async fn authenticate(api: &Api, token: &str, audiences: &[String]) -> Option<Found> {
    let claims = api.pki.service_account.verify(token)?;
    let now = jiff::Timestamp::now().as_second();
    let number = |key: &str| claims.get(key).and_then(Value::as_i64);
    if number("exp")? <= now || number("nbf").is_some_and(|n| n > now + 60) || str_at(&claims, "iss") != api.config.service_account_issuer {
        return None;
    }
    let given: Vec<String> = match claims.get("aud")? {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => return None,
    };
    let common: Vec<String> = given.into_iter().filter(|a| audiences.contains(a)).collect();
    if common.is_empty() {
        return None;
    }
    let private = claims.get("kubernetes.io")?;
    let namespace = str_at(private, "namespace");
    let (name, uid) = (str_at(private, "serviceaccount.name"), str_at(private, "serviceaccount.uid"));
    if !lives(api, "ServiceAccount", namespace, name, uid).await {
        return None;
    }
    let mut user = User::service_account(namespace, name);
    user.uid = uid.to_owned();
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if str_at(&claims, "jti").is_empty() {
        return None;
    }
    extra("credential-id", &format!("JTI={}", str_at(&claims, "jti")));
    for (key, kind) in [("pod", "Pod"), ("secret", "Secret"), ("node", "Node")] {
        let Some(bound) = private.get(key) else { continue };
        let (name, uid) = (str_at(bound, "name"), str_at(bound, "uid"));
        // A node beside a pod is information; alone it is what the token is bound to.
        let informative = key == "node" && private.get("pod").is_some();
        if !informative && !lives(api, kind, if key == "node" { "" } else { namespace }, name, uid).await {
            return None;
        }
        if key != "secret" {
            extra(&format!("{key}-name"), name);
            extra(&format!("{key}-uid"), uid);
        }
    }
    Some(Found { user, audiences: common })
}

async fn lives(api: &Api, kind: &str, namespace: &str, name: &str, uid: &str) -> bool {
    let found = api.read_kind("", kind, namespace, name).await.ok().flatten();
    found.is_some_and(|o| uid.is_empty() || object::uid(&o) == uid)
}
