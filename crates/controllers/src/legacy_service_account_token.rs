//! Tokens in Secrets that were made for accounts without anybody's asking, and that nobody has used for a year, are marked
//! invalid, and deleted after another year. Upstream's `LegacySATokenCleaner`.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::action::{Action, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "legacy-serviceaccount-token-cleaner-controller",
    identity: "legacy-service-account-token-cleaner",
    component: "legacy-service-account-token-cleaner",
    watches: &[Watch::Secrets(|_, secret| of_type(secret).then(|| meta::key(secret)).into_iter().collect())],
    reconcile,
};

const SYSTEM: &str = "kube-system";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const PERIOD: SignedDuration = SignedDuration::from_hours(365 * 24);
const DAY: Duration = Duration::from_secs(86400);

fn of_type(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some("kubernetes.io/service-account-token")
}

/// The start of a day that is written as one.
fn day(text: &str) -> Option<Timestamp> {
    text.parse::<Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp())
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(secret) = view.secrets.get(&key.namespace, &key.name).filter(|s| of_type(s)) else { return Outcome::nothing() };
    let mut outcome = Outcome::nothing();
    outcome.requeue_in(DAY);
    let tracked = view.token_tracking.get(SYSTEM, TRACKING);
    let since = tracked.and_then(|map| map.data.as_ref().and_then(|d| d.get("since")).and_then(|s| day(s)));
    let old = |then: Timestamp| context.now.duration_since(then) >= PERIOD;
    // What was not watched for a whole period may have been used in it.
    if !since.is_some_and(old) || !old(meta::created(&*secret)) || !made_unasked(view, &secret) || mounted(view, &secret) {
        return outcome;
    }
    if meta::label(&*secret, LAST_USED).and_then(day).is_some_and(|used| !old(used)) {
        return outcome;
    }
    match meta::label(&*secret, INVALID_SINCE).map(day) {
        Some(Some(invalid)) if old(invalid) => outcome.actions.push(Action::delete(&*secret)),
        Some(Some(_)) => {}
        // Never marked, or with something that is no day.
        None | Some(None) => {
            let today = context.now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
            outcome.actions.push(Action::patch(&*secret, json!({"metadata": {"labels": {INVALID_SINCE: today}}})));
        }
    }
    outcome
}

/// Whether its account lists it, as only those do that were made for the account.
fn made_unasked(view: &View<'_>, secret: &Secret) -> bool {
    let Some(name) = meta::annotation(secret, "kubernetes.io/service-account.name") else { return false };
    let Some(account) = view.service_accounts.get(meta::namespace(secret), name) else { return false };
    let listed = account.secrets.iter().flatten().any(|s| s.name.as_deref() == Some(meta::name(secret)));
    listed && meta::annotation(secret, "kubernetes.io/service-account.uid") == Some(meta::uid(&*account))
}

fn mounted(view: &View<'_>, secret: &Secret) -> bool {
    let pods = view.pods.list_namespace(meta::namespace(secret));
    let volumes = pods.iter().filter_map(|p| p.spec.as_ref()).flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.secret.as_ref()).any(|s| s.secret_name.as_deref() == Some(meta::name(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::Value;

    fn model(listed: bool) -> Model {
        let secrets = if listed { json!([{"name": "s"}]) } else { json!([]) };
        let tracking = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRACKING, "namespace": SYSTEM},
            "data": {"since": "2023-11-15"}});
        Model::new(&[
            tracking,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "n", "uid": "u"}, "secrets": secrets}),
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": {"name": "s", "namespace": "n",
                "annotations": {"kubernetes.io/service-account.name": "a", "kubernetes.io/service-account.uid": "u"}}}),
        ])
    }

    fn label(model: &Model) -> Value {
        model.get::<Secret>("n", "s")["metadata"]["labels"][INVALID_SINCE].clone()
    }

    fn run(model: &mut Model) {
        model.settle(&CONTROLLER, &Key::new("n", "s"));
    }

    #[test]
    fn an_unused_token_is_marked_and_a_year_later_deleted() {
        let mut model = model(true);
        run(&mut model);
        assert_eq!(label(&model), Value::Null);
        model.pass(366 * 86400);
        run(&mut model);
        assert_eq!(label(&model), "2024-11-14");
        model.pass(300 * 86400);
        run(&mut model);
        assert_eq!(model.of_kind::<Secret>().len(), 1);
        model.pass(66 * 86400);
        run(&mut model);
        assert_eq!(model.of_kind::<Secret>().len(), 0);
    }

    #[test]
    fn one_that_is_used_or_was_asked_for_stays() {
        let mut asked = model(false);
        asked.pass(800 * 86400);
        run(&mut asked);
        assert_eq!(label(&asked), Value::Null);
        let mut used = model(true);
        used.pass(366 * 86400);
        used.merge::<Secret>("n", "s", &json!({"metadata": {"labels": {LAST_USED: "2024-06-01"}}}));
        run(&mut used);
        assert_eq!(label(&used), Value::Null);
    }
}
