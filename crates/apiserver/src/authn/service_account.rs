//! ServiceAccount tokens: ours by signature, in time, for our audience, and bound to things that still exist. Those of
//! TokenRequests name what they are bound to; legacy ones lie in a Secret.

use auth::User;
use auth::jwt::{self, Jwt};
use machinery::object::{self, str_at};
use serde_json::Value;

use super::legacy_token;
use super::token::{Found, Remarks, Verdict};
use crate::metrics::table;
use crate::state::Api;

/// Clocks differ, and what was deleted less than this ago still counts.
pub const LEEWAY_SECONDS: i64 = 60;
const INVALIDATED: &str = "service account token has been invalidated";
const STALE: &str = "authentication.k8s.io/stale-token";
/// Who signs tokens that lie in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

pub async fn authenticate(api: &Api, token: &str, audiences: &[String]) -> Verdict {
    let Ok(jwt) = jwt::parse(token) else { return Verdict::Unknown };
    let issuer = jwt.claims.get("iss").and_then(Value::as_str).unwrap_or("");
    let own = &api.config.authentication.service_account.accepted_issuers;
    let legacy = issuer == LEGACY_ISSUER;
    if !legacy && issuer != api.config.service_account_issuer && !own.iter().any(|i| i == issuer) {
        return Verdict::Unknown;
    }
    if !api.pki.service_account().await.signed(&jwt) {
        return Verdict::Unknown;
    }
    let implied = api.config.audiences();
    let mut given = jwt::audiences(&jwt.claims);
    if given.is_empty() && legacy {
        given.clone_from(&implied);
    }
    let common: Vec<String> = given.iter().filter(|a| audiences.contains(a)).cloned().collect();
    if common.is_empty() {
        return Verdict::Refused(format!("token audiences {} is invalid for the target audiences {}", quoted(&given), quoted(audiences)));
    }
    let checked = if legacy { legacy_token::check(api, token, &jwt).await } else { check(api, &jwt).await };
    match checked {
        Ok((user, remarks)) => Verdict::Found(Box::new(Found { user, audiences: common, remarks })),
        Err(why) => Verdict::Refused(why),
    }
}

fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|a| machinery::field::go_quote(a)).collect::<Vec<_>>().join(" "))
}

/// Upstream's `validator.Validate`.
async fn check(api: &Api, jwt: &Jwt<'_>) -> Result<(User, Remarks), String> {
    let now = jiff::Timestamp::now().as_second();
    in_time(&jwt.claims, now)?;
    let private = jwt.claims.get("kubernetes.io").unwrap_or(&Value::Null);
    let namespace = str_at(private, "namespace");
    let (name, uid) = (str_at(private, "serviceaccount.name"), str_at(private, "serviceaccount.uid"));
    account(api, namespace, name, uid, now).await?;
    let mut user = User::service_account(namespace, name);
    user.uid = uid.to_owned();
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    let id = str_at(&jwt.claims, "jti");
    if !id.is_empty() {
        extra("credential-id", &format!("JTI={id}"));
    }
    for (key, kind, what) in
        [("secret", "Secret", "service account secret"), ("pod", "Pod", "service account pod"), ("node", "Node", "service account node")]
    {
        let Some(bound) = private.get(key).filter(|b| !b.is_null()) else { continue };
        let (name, uid) = (str_at(bound, "name"), str_at(bound, "uid"));
        // A node beside a pod is information; alone it is what the token is bound to.
        if !(key == "node" && private.get("pod").is_some_and(|p| !p.is_null())) {
            let namespace = if key == "node" { "" } else { namespace };
            let found = live(api, kind, namespace, name, now).await.ok_or(INVALIDATED)?;
            if object::uid(&found) != uid {
                return Err(format!("{key} UID ({}) does not match {what} ref claim ({uid})", object::uid(&found)));
            }
        }
        if key != "secret" {
            extra(&format!("{key}-name"), name);
            extra(&format!("{key}-uid"), uid);
        }
    }
    Ok((user, remarks(api, private, str_at(&jwt.claims, "sub"), now)))
}

/// A token of a projected volume that lives on for clients that never read it again: it should have been replaced by now.
fn remarks(api: &Api, private: &Value, subject: &str, now: i64) -> Remarks {
    let late = private.get("warnafter").and_then(Value::as_i64).map(|at| now - at).filter(|late| *late > 0);
    api.metrics.count(if late.is_some() { &table::STALE_TOKENS } else { &table::VALID_TOKENS }, &[]);
    let said = late.map(|late| (STALE, format!("subject: {subject}, seconds after warning threshold: {late}")));
    Remarks { notes: said.into_iter().collect(), ..Remarks::default() }
}

fn in_time(claims: &Value, now: i64) -> Result<(), String> {
    let date = |name: &str| {
        jwt::date(claims, name)
            .map_err(|_| "service account token claims could not be validated due to unexpected validation error".to_owned())
    };
    let text = if date("nbf")?.is_some_and(|n| n > now + LEEWAY_SECONDS) {
        "service account token is not valid yet"
    } else if date("exp")?.is_none_or(|e| e < now - LEEWAY_SECONDS) {
        "service account token has expired"
    } else if date("iat")?.is_some_and(|i| i > now + LEEWAY_SECONDS) {
        "service account token is issued in the future"
    } else {
        return Ok(());
    };
    Err(text.to_owned())
}

/// That the account exists and is still the same.
pub async fn account(api: &Api, namespace: &str, name: &str, uid: &str, now: i64) -> Result<Value, String> {
    let found = api.read_kind("", "ServiceAccount", namespace, name).await.map_err(|e| e.message)?;
    let Some(account) = found else { return Err(format!("serviceaccounts {} not found", machinery::field::go_quote(name))) };
    if going(&account, now) {
        return Err(format!("service account {namespace}/{name} has been deleted"));
    }
    if object::uid(&account) != uid {
        return Err(format!("service account UID ({}) does not match claim ({uid})", object::uid(&account)));
    }
    Ok(account)
}

/// An object that is there and has not been on its way out for long.
pub async fn live(api: &Api, kind: &str, namespace: &str, name: &str, now: i64) -> Option<Value> {
    if name.is_empty() {
        return None;
    }
    api.read_kind("", kind, namespace, name).await.ok().flatten().filter(|o| !going(o, now))
}

fn going(object: &Value, now: i64) -> bool {
    machinery::time::parse(str_at(object, "metadata.deletionTimestamp")).is_some_and(|at| at < now - LEEWAY_SECONDS)
}
