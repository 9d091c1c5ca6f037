//! An APIService for every group version that is served here, as upstream's `autoregister` controller keeps them: those of
//! built-in groups are put right once at the start, those of custom resources always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use machinery::gvk::GroupVersion;
use machinery::object::{self, metadata_mut};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::routes::{GROUP, KIND};
use crate::bootstrap;
use crate::state::Api;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const MANAGER: &str = "kube-apiserver";
const RETRY: Duration = Duration::from_secs(1);
/// Custom resources come after everything else.
pub const CUSTOM: GroupPriority = GroupPriority { group: 1000, version: 100 };

/// Where a group version stands in discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPriority {
    pub group: i64,
    pub version: i64,
}

/// Upstream's order of the built-in groups.
const GROUPS: [(&str, i64); 20] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
];
/// Versions that do not stand where their stability says.
const VERSIONS: [(&str, &str, i64); 4] =
    [("", "v1", 1), ("autoscaling", "v2", 30), ("flowcontrol.apiserver.k8s.io", "v1", 21), ("resource.k8s.io", "v1", 21)];

/// The priority of a group version served here; `None` for the aggregator's own group, which has no APIService.
pub fn priority(gv: &GroupVersion) -> Option<GroupPriority> {
    if gv.group == GROUP {
        return None;
    }
    let Some((_, group)) = GROUPS.into_iter().find(|(name, _)| *name == gv.group) else { return Some(CUSTOM) };
    let special = VERSIONS.into_iter().find(|(group, version, _)| *group == gv.group && *version == gv.version);
    let by_stability = match gv.version.as_str() {
        v if v.contains("alpha") => 9,
        v if v.contains("beta") => 12,
        _ => 15,
    };
    Some(GroupPriority { group, version: special.map_or(by_stability, |(_, _, priority)| priority) })
}

fn is_built_in(gv: &GroupVersion) -> bool {
    GROUPS.iter().any(|(name, _)| *name == gv.group)
}

fn wanted(gv: &GroupVersion, at: GroupPriority) -> Value {
    let managed = if is_built_in(gv) { "onstart" } else { "true" };
    let mut spec = json!({"version": gv.version, "groupPriorityMinimum": at.group, "versionPriority": at.version});
    if !gv.group.is_empty() {
        spec["group"] = json!(gv.group);
    }
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": KIND,
        "metadata": {"name": format!("{}.{}", gv.version, gv.group), "labels": {MANAGED: managed}}, "spec": spec})
}

fn all(api: &Api) -> BTreeMap<String, Value> {
    let registry = api.registry.snapshot();
    let rows = registry.group_versions().iter().filter_map(|gv| Some(wanted(gv, priority(gv)?)));
    rows.map(|object| (object::name(&object).to_owned(), object)).collect()
}

/// At the start: makes what is missing, takes away what no longer is.
pub async fn ensure(api: &Arc<Api>) -> Result<(), String> {
    sync(api, true).await
}

/// Follows what is served.
pub async fn run(api: Arc<Api>, cancel: CancellationToken) {
    let mut rows = api.registry.subscribe();
    let mut services = api.aggregation.changed.clone();
    loop {
        rows.mark_unchanged();
        services.mark_unchanged();
        let failed = sync(&api, false).await;
        if let Err(error) = &failed {
            tracing::warn!(error, "the APIServices of what is served here could not be kept");
        }
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            _ = rows.changed() => {}
            _ = services.changed() => {}
            () = tokio::time::sleep(RETRY), if failed.is_err() => {}
        }
    }
}

async fn sync(api: &Arc<Api>, starting: bool) -> Result<(), String> {
    let wanted = all(api);
    let current = api.aggregation.routes.load().all.clone();
    let names: BTreeSet<&String> = wanted.keys().chain(current.keys()).collect();
    let steps = names.into_iter().map(|name| decide(wanted.get(name), current.get(name).map(|c| &**c), starting));
    // At once: the store syncs them together.
    let writes = steps.filter_map(|step| match step {
        Step::None => None,
        Step::Create(object) => Some((Method::POST, object)),
        Step::Update(object) => Some((Method::PUT, object)),
        Step::Delete(object) => Some((Method::DELETE, object)),
    });
    let writes = writes.map(|(method, object)| async move { bootstrap::write_as(api, method, &object, MANAGER, "").await });
    futures::future::try_join_all(writes).await.map(|_| ())
}

#[derive(Debug, PartialEq)]
enum Step {
    None,
    Create(Value),
    Update(Value),
    Delete(Value),
}

/// Upstream's `checkAPIService`.
fn decide(wanted: Option<&Value>, current: Option<&Value>, starting: bool) -> Step {
    let label = |o: &Value| o.pointer("/metadata/labels").and_then(|l| l.get(MANAGED)).and_then(Value::as_str).map(str::to_owned);
    match (wanted, current) {
        (None, None) => Step::None,
        // Built-in ones only at the start: who deletes one afterwards means it.
        (Some(wanted), None) if starting || label(wanted).as_deref() == Some("true") => Step::Create(wanted.clone()),
        (Some(_), None) => Step::None,
        (None, Some(current)) => match label(current).as_deref() {
            Some("true") => Step::Delete(current.clone()),
            Some("onstart") if starting => Step::Delete(current.clone()),
            _ => Step::None,
        },
        (Some(wanted), Some(current)) => {
            let managed = label(current);
            let ours = managed.as_deref() == Some("true") || managed.as_deref() == Some("onstart") && starting;
            if !ours || (wanted["spec"] == current["spec"] && managed == label(wanted)) {
                return Step::None;
            }
            let mut object = current.clone();
            object["spec"] = wanted["spec"].clone();
            if let Some(value) = label(wanted) {
                object::map_mut(&mut object, "metadata.labels").insert(MANAGED.to_owned(), json!(value));
            }
            metadata_mut(&mut object).remove("managedFields");
            Step::Update(object)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_managed_is_kept_and_what_is_not_left_alone() {
        let custom = wanted(&GroupVersion::new("g.io", "v1"), CUSTOM);
        let built_in = GroupVersion::new("apps", "v1");
        let built_in = wanted(&built_in, priority(&built_in).unwrap_or(CUSTOM));
        assert_eq!(built_in["spec"], json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}));
        assert_eq!((&custom["spec"]["groupPriorityMinimum"], &custom["spec"]["versionPriority"]), (&json!(1000), &json!(100)));
        assert_eq!(decide(Some(&built_in), None, true), Step::Create(built_in.clone()));
        assert_eq!(decide(Some(&built_in), None, false), Step::None, "somebody deleted it");
        assert_eq!(decide(Some(&custom), None, false), Step::Create(custom.clone()));
        assert_eq!(decide(None, Some(&custom), false), Step::Delete(custom.clone()));
        assert_eq!(decide(None, Some(&built_in), false), Step::None);
        let mut changed = custom.clone();
        changed["spec"]["groupPriorityMinimum"] = json!(7);
        assert_eq!(decide(Some(&custom), Some(&changed), false), Step::Update(custom.clone()));
        changed["metadata"]["labels"] = json!({});
        assert_eq!(decide(Some(&custom), Some(&changed), false), Step::None, "taken over by its user");
        assert_eq!(priority(&GroupVersion::new(GROUP, "v1")), None);
    }
}
