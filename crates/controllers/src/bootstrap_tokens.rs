//! Bootstrap tokens: those past their time are deleted, and `kube-public/cluster-info` is signed with each that is for signing.
//! Upstream's `tokencleaner` and `bootstrapsigner`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::action::{Action, Outcome, Target, to_value};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CLEANER: Controller = Controller {
    name: "token-cleaner-controller",
    identity: "token-cleaner",
    component: "token-cleaner",
    watches: &[Watch::Secrets(|_, secret| is_token(secret).then(|| meta::key(secret)).into_iter().collect())],
    reconcile: clean,
};

pub const SIGNER: Controller = Controller {
    name: "bootstrap-signer-controller",
    identity: "bootstrap-signer",
    component: "bootstrap-signer",
    watches: &[
        Watch::Secrets(|_, secret| if is_token(secret) { vec![Key::new(PUBLIC, CLUSTER_INFO)] } else { Vec::new() }),
        Watch::ClusterInfos(|_, map| vec![meta::key(map)]),
    ],
    reconcile: sign,
};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

fn is_token(secret: &Secret) -> bool {
    meta::namespace(secret) == SYSTEM && secret.type_.as_deref() == Some(TYPE)
}

fn datum<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|d| d.get(key)).map_or(&[][..], |b| b.0.as_slice());
    std::str::from_utf8(bytes).unwrap_or("")
}

/// When it ends; a time that does not read is past. `None`: never.
fn expires(secret: &Secret) -> Option<Timestamp> {
    let text = datum(secret, "expiration");
    (!text.is_empty()).then(|| text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

fn clean(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(secret) = view.secrets.get(&key.namespace, &key.name).filter(|s| is_token(s)) else { return Outcome::nothing() };
    let mut outcome = Outcome::nothing();
    match expires(&secret) {
        Some(end) if end <= context.now => outcome.actions.push(Action::delete(&*secret)),
        Some(end) => outcome.requeue_in(meta::unsigned(end.duration_since(context.now))),
        None => {}
    }
    outcome
}

fn sign(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(info) = view.cluster_infos.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let Some(content) = info.data.as_ref().and_then(|d| d.get("kubeconfig")) else { return Outcome::nothing() };
    let mut new = ConfigMap::clone(&info);
    let mut outcome = Outcome::nothing();
    let data = new.data.get_or_insert_default();
    data.retain(|key, _| !key.starts_with(SIGNATURE));
    for secret in view.secrets.list_namespace(SYSTEM).iter().filter(|s| is_token(s)) {
        let end = expires(secret);
        if end.is_some_and(|end| end <= context.now) {
            continue;
        }
        let (id, token) = (datum(secret, "token-id"), datum(secret, "token-secret"));
        let named = meta::name(&**secret) == format!("bootstrap-token-{id}");
        if named && !id.is_empty() && !token.is_empty() && datum(secret, "usage-bootstrap-signing") == "true" {
            data.insert(format!("{SIGNATURE}{id}"), signature(content, id, token));
            if let Some(end) = end {
                outcome.requeue_in(meta::unsigned(end.duration_since(context.now)));
            }
        }
    }
    if new != *info {
        outcome.actions.push(Action::Replace { target: Target::of(&*info), subresource: None, object: to_value(&new) });
    }
    outcome
}

/// A JWS without its payload: who has the token can check the content.
fn signature(content: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac_sha256(secret.as_bytes(), signed.as_bytes())))
}

/// RFC 2104.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    fn token(id: &str, more: &[(&str, &str)]) -> Value {
        let mut data = json!({"token-id": STANDARD.encode(id), "token-secret": STANDARD.encode("0123456789abcdef")});
        for (key, value) in more {
            data[key] = json!(STANDARD.encode(value));
        }
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": SYSTEM},
            "type": TYPE, "data": data})
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let hex: String = hmac_sha256(b"Jefe", b"what do ya want for nothing?").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_token_ends_and_its_signature_with_it() {
        let now = 1_700_000_000;
        let end = machinery::time::format(now + 100);
        let sign = [("usage-bootstrap-signing", "true"), ("expiration", end.as_str())];
        let mut model = Model::new(&[
            token("aaaaaa", &sign),
            token("bbbbbb", &[]),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CLUSTER_INFO, "namespace": PUBLIC},
                "data": {"kubeconfig": "x", "jws-kubeconfig-old": "y"}}),
        ]);
        let info = Key::new(PUBLIC, CLUSTER_INFO);
        let signatures = |model: &Model| {
            let data = model.get::<ConfigMap>(PUBLIC, CLUSTER_INFO)["data"].as_object().unwrap().clone();
            data.into_iter().filter(|(key, value)| key.starts_with(SIGNATURE) && !value.is_null()).map(|(key, _)| key).collect::<Vec<_>>()
        };
        model.settle(&SIGNER, &info);
        assert!(signatures(&model).contains(&"jws-kubeconfig-aaaaaa".to_owned()));
        assert!(!signatures(&model).contains(&"jws-kubeconfig-bbbbbb".to_owned()));
        model.settle(&CLEANER, &Key::new(SYSTEM, "bootstrap-token-aaaaaa"));
        assert_eq!(model.of_kind::<Secret>().len(), 2);
        model.pass(101);
        model.settle(&CLEANER, &Key::new(SYSTEM, "bootstrap-token-aaaaaa"));
        assert_eq!(model.of_kind::<Secret>().len(), 1);
    }
}
