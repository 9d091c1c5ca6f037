//! Groups that other servers serve, put into the discovery documents beside ours, by the priorities of their APIServices.

use std::cmp::Reverse;

use machinery::gvk::GroupVersion;
use machinery::object;
use serde_json::{Value, json};

use super::register::{CUSTOM, GroupPriority, priority};
use super::routes::{GROUP, Route};
use crate::registry::newer_first;
use crate::state::Api;

/// The aggregator's own group comes first of all.
const OWN: GroupPriority = GroupPriority { group: i64::MAX, version: 1 };

fn local(group: &str, version: &str) -> GroupPriority {
    if group == GROUP { OWN } else { priority(&GroupVersion::new(group, version)).unwrap_or(CUSTOM) }
}

/// What one form of discovery calls things.
#[derive(Clone, Copy)]
enum Form {
    /// `APIGroup`.
    Group,
    /// `APIGroupDiscovery`.
    Discovery,
}

impl Form {
    fn name(self, item: &Value) -> &str {
        match self {
            Self::Group => object::str_at(item, "name"),
            Self::Discovery => object::name(item),
        }
    }
}

/// Adds other servers' groups to the items of an `APIGroupList`.
pub fn add_to_groups(api: &Api, items: &mut Vec<Value>) {
    add(api, items, Form::Group, |_| true);
}

/// Adds other servers' versions to one `APIGroup`; there may be none of ours.
pub fn add_to_group(api: &Api, name: &str, ours: Option<Value>) -> Option<Value> {
    let mut items: Vec<Value> = ours.into_iter().collect();
    add(api, &mut items, Form::Group, |group| group == name);
    items.pop()
}

/// Adds other servers' groups to the items of an `APIGroupDiscoveryList`.
pub fn add_to_discovery(api: &Api, items: &mut Vec<Value>) {
    add(api, items, Form::Discovery, |group| !group.is_empty());
}

fn add(api: &Api, items: &mut Vec<Value>, form: Form, wanted: impl Fn(&str) -> bool) {
    if !api.aggregation.has_remote() {
        return;
    }
    let routes = api.aggregation.remote();
    let routes: Vec<_> = routes.iter().filter(|r| wanted(&r.group) && !r.group.is_empty()).collect();
    for route in &routes {
        let at = items.iter().position(|item| form.name(item) == route.group).unwrap_or_else(|| {
            items.push(match form {
                Form::Group => json!({"name": route.group, "versions": []}),
                Form::Discovery => json!({"metadata": {"name": route.group, "creationTimestamp": null}, "versions": []}),
            });
            items.len() - 1
        });
        let versions = items[at]["versions"].as_array().cloned().unwrap_or_default();
        let others = versions.into_iter().filter(|v| object::str_at(v, "version") != route.version);
        let mut versions: Vec<Value> = others.chain([shown(api, route, form)]).collect();
        let standing = |v: &Value| standing(&routes, &route.group, object::str_at(v, "version"));
        versions.sort_by(|a, b| {
            let by_name = || newer_first(object::str_at(a, "version"), object::str_at(b, "version"));
            Reverse(standing(a).version).cmp(&Reverse(standing(b).version)).then_with(by_name)
        });
        if matches!(form, Form::Group) {
            items[at]["preferredVersion"] = versions.first().cloned().unwrap_or_default();
        }
        items[at]["versions"] = json!(versions);
    }
    let priority_of = |item: &Value| {
        let versions = item["versions"].as_array().into_iter().flatten();
        versions.map(|v| standing(&routes, form.name(item), object::str_at(v, "version")).group).max().unwrap_or(0)
    };
    // Ours are in their order already; equal ones by name where they are not built in.
    items.sort_by_cached_key(|item| {
        let priority = priority_of(item);
        (Reverse(priority), if priority <= CUSTOM.group { form.name(item).to_owned() } else { String::new() })
    });
}

/// The priorities of a version, whoever serves it.
fn standing(routes: &[&std::sync::Arc<Route>], group: &str, version: &str) -> GroupPriority {
    let remote = routes.iter().find(|r| r.group == group && r.version == version);
    remote.map_or_else(|| local(group, version), |r| GroupPriority { group: r.group_priority, version: r.version_priority })
}

fn shown(api: &Api, route: &Route, form: Form) -> Value {
    match form {
        Form::Group => json!({"groupVersion": format!("{}/{}", route.group, route.version), "version": route.version}),
        Form::Discovery => {
            let documents = api.aggregation.documents(&route.name);
            let fresh = documents.as_ref().is_some_and(|d| d.fresh);
            let mut out = json!({"version": route.version, "freshness": if fresh { "Current" } else { "Stale" }});
            if let Some(documents) = documents.filter(|d| !d.resources.is_empty()) {
                out["resources"] = json!(documents.resources);
            }
            out
        }
    }
}
