//! ResourceQuota: what a namespace uses of what it may. Upstream's `pkg/controller/resourcequota`. What an object counts for
//! is [`kinds::quota`]'s to say, as it is for admission.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinds::quota::{self, Usage};
use machinery::quantity::{Format, Quantity};
use machinery::requests::Amounts as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::action::{Action, Outcome, to_value};
use crate::view::{Context, Key, Lister, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    identity: "resourcequota-controller",
    component: "resourcequota-controller",
    watches: &[
        Watch::ResourceQuotas(|_, quota| vec![meta::key(quota)]),
        Watch::Pods(|view, pod| quotas_in(view, meta::namespace(pod))),
        Watch::Services(|view, service| quotas_in(view, meta::namespace(service))),
        Watch::PersistentVolumeClaims(|view, claim| quotas_in(view, meta::namespace(claim))),
        Watch::ReplicationControllers(|view, set| quotas_in(view, meta::namespace(set))),
    ],
    reconcile,
};

/// How long after admission has last charged a quota nothing is given back: what it let through may not be written yet.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// How often kinds are counted that send no changes here but when one of them is deleted.
const RECOUNT: Duration = Duration::from_secs(30);

fn quotas_in(view: &View<'_>, namespace: &str) -> Vec<Key> {
    view.resource_quotas.list_namespace(namespace).iter().map(|quota| meta::key(&**quota)).collect()
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(found) = view.resource_quotas.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let hard = found.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let old = found.status.clone().unwrap_or_default();
    let mut sum = Usage::new();
    let mut unknown = Vec::new();
    let mut outcome = Outcome::nothing();
    let resources: std::collections::BTreeSet<String> = hard.keys().filter_map(|name| quota::resource_of(name)).collect();
    for resource in resources {
        let counted = Counted { namespace: &key.namespace, resource: &resource, quota: &found, context };
        let usage = match resource.as_str() {
            "pods" => Some(counted.sum(view.pods)),
            "services" => Some(counted.sum(view.services)),
            "persistentvolumeclaims" => Some(counted.sum(view.persistent_volume_claims)),
            _ => {
                outcome.requeue_in(RECOUNT);
                counted.count()
            }
        };
        match usage {
            Some(usage) => sum.add(&usage),
            None => unknown.push(resource),
        }
    }
    let waited = has_waited(&found, context, &mut outcome);
    let mut held = false;
    let mut text = |name: &String| {
        if quota::resource_of(name).is_some_and(|resource| unknown.contains(&resource)) {
            // Not known yet: what was told before stands.
            return old.used.as_ref().and_then(|used| used.get(name)).cloned();
        }
        let used = sum.get(name).copied().unwrap_or(Quantity::new(0, Format::DecimalSI));
        let before = old.used.as_ref().and_then(|used| used.get(name));
        if !(waited && has_seen(view, &found, name))
            && before.and_then(|text| Quantity::parse(&text.0).ok()).is_some_and(|before| used < before)
        {
            held = true;
            return before.cloned();
        }
        Some(Text(used.to_string()))
    };
    let used: BTreeMap<String, Text> = hard.keys().filter_map(|name| Some((name.clone(), text(name)?))).collect();
    if held {
        outcome.requeue_in(IN_FLIGHT);
    }
    let same = old.hard.as_ref() == Some(&hard) && old.used.as_ref().is_some_and(|old| equal(old, &used));
    if !same {
        let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
        outcome.actions.push(Action::replace_status(&*found, &status));
    }
    outcome
}

/// Whether admission charged the quota last a while ago. A count that is lower than what it has charged can only be believed
/// then: what was let through a moment ago may not be written yet, and would be given away a second time.
fn has_waited(quota: &ResourceQuota, context: &Context<'_>, outcome: &mut Outcome) -> bool {
    let version = quota.metadata.resource_version.clone().unwrap_or_default();
    let known = context.memory.filter(|memory| memory["version"] == version.as_str());
    let now = u64::try_from(context.uptime.as_millis()).unwrap_or(u64::MAX);
    let since = known.and_then(|memory| memory["since"].as_u64()).unwrap_or(now);
    outcome.memory = Some(json!({"version": version, "since": since}));
    u128::from(now.saturating_sub(since)) >= IN_FLIGHT.as_millis()
}

/// Whether the cache of what is counted under a name shows all that was written before the quota was charged last.
fn has_seen(view: &View<'_>, quota: &ResourceQuota, name: &str) -> bool {
    let charged: u64 = quota.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0);
    let seen = match quota::resource_of(name).as_deref() {
        Some("pods") => view.pods.revision(),
        Some("services") => view.services.revision(),
        Some("persistentvolumeclaims") => view.persistent_volume_claims.revision(),
        _ => u64::MAX,
    };
    seen >= charged
}

/// By value: admission may have written another form of the same amount.
fn equal(a: &BTreeMap<String, Text>, b: &BTreeMap<String, Text>) -> bool {
    let value = |text: &Text| Quantity::parse(&text.0).ok();
    a.len() == b.len() && a.iter().all(|(name, amount)| b.get(name).is_some_and(|other| value(other) == value(amount)))
}

struct Counted<'a> {
    namespace: &'a str,
    resource: &'a str,
    quota: &'a ResourceQuota,
    context: &'a Context<'a>,
}

impl Counted<'_> {
    fn spec(&self) -> Value {
        self.quota.spec.as_ref().map(to_value).unwrap_or(Value::Null)
    }

    fn sum<K: Metadata<Ty = ObjectMeta> + Serialize>(&self, lister: &dyn Lister<K>) -> Usage {
        let (mut sum, spec) = (Usage::new(), self.spec());
        for object in lister.list_namespace(self.namespace) {
            let tree = to_value(&*object);
            if quota::in_scope(&spec, self.resource, &tree) {
                sum.add(&quota::usage(self.resource, &tree, self.context.now));
            }
        }
        sum
    }

    /// Objects of any other kind only count by their number.
    fn count(&self) -> Option<Usage> {
        let spec = self.spec();
        if !quota::in_scope(&spec, self.resource, &Value::Null) {
            return Some(Usage::new());
        }
        let number = self.context.counts?.count(self.namespace, self.resource)?;
        let amount = Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSI);
        let one = quota::usage(self.resource, &Value::Null, self.context.now);
        Some(one.into_keys().map(|name| (name, amount)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use k8s_openapi::api::core::v1::{Pod, Secret};

    #[test]
    fn usage_follows_what_is_there() {
        let hard = json!({"pods": "5", "requests.cpu": "2", "limits.memory": "1Gi", "secrets": "3", "count/deployments.apps": "1", "services.nodeports": "0"});
        let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": name}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}, "limits": {"memory": "64Mi"}}}]}});
        let mut model = Model::new(&[
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "d", "name": "q"}, "spec": {"hard": hard}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "d", "name": "s"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "other", "name": "s"}}),
            pod("a"),
            pod("b"),
        ]);
        let key = Key::new("d", "q");
        model.settle(&CONTROLLER, &key);
        let used = |model: &Model| model.get::<ResourceQuota>("d", "q")["status"]["used"].clone();
        assert_eq!(
            used(&model),
            json!({"pods": "2", "requests.cpu": "1200m", "limits.memory": "128Mi", "secrets": "1", "count/deployments.apps": "0", "services.nodeports": "0"})
        );
        assert_eq!(model.get::<ResourceQuota>("d", "q")["status"]["hard"], hard);
        model.merge::<Pod>("d", "a", &json!({"status": {"phase": "Succeeded"}}));
        model.objects.remove(&("Secret".into(), "d".into(), "s".into()));
        assert_eq!(model.of_kind::<Secret>().len(), 1);
        // What admission let through a moment ago may not be written yet.
        model.settle(&CONTROLLER, &key);
        assert_eq!(used(&model)["pods"], "2");
        model.pass(1);
        model.settle(&CONTROLLER, &key);
        assert_eq!((&used(&model)["pods"], &used(&model)["secrets"]), (&json!("1"), &json!("0")));
        // Scopes choose among pods, and shut out everything else.
        model.merge::<ResourceQuota>("d", "q", &json!({"spec": {"scopes": ["BestEffort"], "hard": {"pods": "1"}}}));
        model.settle(&CONTROLLER, &key);
        model.pass(1);
        model.settle(&CONTROLLER, &key);
        assert_eq!(used(&model)["pods"], "0");
    }
}
