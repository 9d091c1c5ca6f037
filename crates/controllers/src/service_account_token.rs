//! Secrets of type `kubernetes.io/service-account-token` hold a token of the account they name, and go with it. Upstream's
//! `TokensController`.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::json;

use crate::action::{Action, Outcome, Target, to_value};
use crate::keys::NoToken;
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "serviceaccount-token-controller",
    identity: crate::MANAGER,
    component: "serviceaccount-token-controller",
    watches: &[
        Watch::Secrets(|_, secret| of_type(secret).then(|| meta::key(secret)).into_iter().collect()),
        Watch::ServiceAccounts(secrets),
    ],
    reconcile,
};

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// While the key of a new cluster is being made.
const AGAIN: Duration = Duration::from_millis(200);

fn of_type(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

fn again() -> Outcome {
    let mut outcome = Outcome::nothing();
    outcome.requeue_in(AGAIN);
    outcome
}

/// Those that name the account.
fn secrets(view: &View<'_>, account: &ServiceAccount) -> Vec<Key> {
    let all = view.secrets.list_namespace(meta::namespace(account));
    let named = |secret: &Secret| of_type(secret) && meta::annotation(secret, NAME) == Some(meta::name(account));
    all.iter().filter(|secret| named(secret)).map(|secret| meta::key(&**secret)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(secret) = view.secrets.get(&key.namespace, &key.name).filter(|s| of_type(s)) else { return Outcome::nothing() };
    let Some(keys) = &context.config.keys.0 else { return Outcome::nothing() };
    let Some(name) = meta::annotation(&*secret, NAME).filter(|n| !n.is_empty()) else { return Outcome::nothing() };
    let account = view.service_accounts.get(&key.namespace, name);
    let uid = meta::annotation(&*secret, UID).unwrap_or("");
    let Some(account) = account.filter(|a| uid.is_empty() || uid == meta::uid(&**a)) else {
        let target = Target::named::<ServiceAccount>(&key.namespace, name);
        // Of another account of that name it is none, whoever has it now.
        let absent = if uid.is_empty() { vec![Action::RequireAbsent { target }] } else { Vec::new() };
        return absent.into_iter().chain([Action::delete(&*secret)]).collect::<Vec<_>>().into();
    };
    let mut new = Secret::clone(&secret);
    let data = new.data.get_or_insert_default();
    if !context.config.root_ca.is_empty() {
        data.insert("ca.crt".to_owned(), ByteString(context.config.root_ca.clone().into_bytes()));
    }
    data.insert("namespace".to_owned(), ByteString(key.namespace.clone().into_bytes()));
    if data.get("token").is_none_or(|t| t.0.is_empty()) {
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:{}:{name}", key.namespace),
            "kubernetes.io/serviceaccount/namespace": key.namespace,
            "kubernetes.io/serviceaccount/secret.name": key.name,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": meta::uid(&*account),
        });
        let token = match keys.token(&claims) {
            Ok(token) => token,
            Err(NoToken::NoKey) => return Outcome::nothing(),
            Err(NoToken::NotYet) => return again(),
        };
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    new.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), meta::uid(&*account).to_owned());
    if new == *secret {
        return Outcome::nothing();
    }
    vec![Action::Replace { target: Target::of(&*secret), subresource: None, object: to_value(&new) }].into()
}
