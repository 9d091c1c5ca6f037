//! Tokens that lie in Secrets of type `kubernetes.io/service-account-token`: good while the Secret holds them. Their use is
//! noted on the Secret once a day (upstream's `legacyValidator`).

use std::sync::Arc;

use auth::jwt::Jwt;
use auth::{User, bootstrap_token::datum, bootstrap_token::same};
use machinery::object::{self, str_at};
use serde_json::Value;

use super::service_account::{account, live};
use crate::state::Api;

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const AUTO_GENERATED: &str =
    "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";

/// The account a genuine token is of, and warnings.
pub async fn check(api: &Api, token: &str, jwt: &Jwt<'_>) -> Result<(User, Vec<String>), String> {
    let claim = |name: &str| jwt.claims.get(name).and_then(Value::as_str).filter(|v| !v.is_empty());
    let subject = claim("sub").ok_or("sub claim is missing")?;
    let namespace = claim("kubernetes.io/serviceaccount/namespace").ok_or("namespace claim is missing")?;
    let secret_name = claim("kubernetes.io/serviceaccount/secret.name").ok_or("secretName claim is missing")?;
    let name = claim("kubernetes.io/serviceaccount/service-account.name").ok_or("serviceAccountName claim is missing")?;
    let uid = claim("kubernetes.io/serviceaccount/service-account.uid").ok_or("serviceAccountUID claim is missing")?;
    let mut user = User::service_account(namespace, name);
    if user.as_service_account() != Some((namespace, name)) || user.name != subject {
        return Err("sub claim is invalid".to_owned());
    }
    let now = jiff::Timestamp::now().as_second();
    let secret = live(api, "Secret", namespace, secret_name, now).await.ok_or("Token has been invalidated")?;
    if !datum(&secret, "token").is_some_and(|held| same(held.as_bytes(), token.as_bytes())) {
        return Err("Token does not match server's copy".to_owned());
    }
    let account = account(api, namespace, name, uid, now).await?;
    user.uid = uid.to_owned();
    let listed = account.get("secrets").and_then(Value::as_array);
    let generated = listed.into_iter().flatten().any(|s| str_at(s, "name") == secret_name);
    let label = |key: &str| object::labels(&secret).find(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
    if label(INVALID_SINCE).is_some() {
        note_use(api, &secret, namespace, secret_name, label(LAST_USED), now).await;
        return Err(format!(
            "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        ));
    }
    note_use(api, &secret, namespace, secret_name, label(LAST_USED), now).await;
    Ok((user, if generated { vec![AUTO_GENERATED.to_owned()] } else { Vec::new() }))
}

/// The day of the last use, as a label on the Secret. A failure costs nothing but the note.
async fn note_use(api: &Api, secret: &Value, namespace: &str, name: &str, noted: Option<String>, now: i64) {
    let today: String = machinery::time::format(now).chars().take(10).collect();
    if noted.as_deref() == Some(today.as_str()) {
        return;
    }
    let Some(row) = api.registry.kind("", "Secret") else { return };
    let mut new = secret.clone();
    object::map_mut(&mut new, "metadata.labels").insert(LAST_USED.to_owned(), Value::String(today));
    let Ok(revision) = object::resource_version(secret).parse::<u64>() else { return };
    let key: Arc<str> = crate::registry::key(&row, namespace, name).into();
    let stored = crate::conversion::to_storage(&row, new);
    let expect = store::Expect::Revision(store::Revision(revision));
    let op = store::Op::Put { key, value: crate::codec::encode(&stored), expect, ttl: None };
    if let Err(error) = api.store.write(op).await {
        tracing::debug!(%error, namespace, name, "the use of a token was not noted");
    }
}
