//! One `PolicyRule`: whether it allows a request, whether it covers another rule, and its text in escalation errors.

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(rename = "apiGroups", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(rename = "resourceNames", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// A list that may be null.
fn list<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(d)?.unwrap_or_default())
}

impl Rule {
    /// Upstream's `rbac.RuleAllows`.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource {
            return self.urls.iter().any(|u| url_matches(u, &asked.path));
        }
        has(&self.groups, &asked.group)
            && self.resource_matches(&asked.resource, &asked.subresource)
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }

    fn resource_matches(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|r| {
            if r == "*" {
                return true;
            }
            match r.split_once('/') {
                None => subresource.is_empty() && r == resource,
                Some((first, sub)) => !subresource.is_empty() && sub == subresource && (first == resource || first == "*"),
            }
        })
    }

    /// Whether this rule allows all that `other`, a broken-down rule of one verb and one target, allows.
    pub(super) fn covers(&self, other: &Rule) -> bool {
        let all = |have: &[String], want: &[String]| have.iter().any(|h| h == "*") || want.iter().all(|w| have.contains(w));
        let resources = self.resources.iter().any(|r| r == "*")
            || other.resources.iter().all(|want| {
                let sub = want.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                self.resources.contains(want) || sub.is_some_and(|s| self.resources.contains(&s))
            });
        let names = self.names.is_empty() || (!other.names.is_empty() && other.names.iter().all(|n| self.names.contains(n)));
        let urls = other.urls.iter().all(|want| self.urls.iter().any(|have| url_covers(have, want)));
        all(&self.verbs, &other.verbs) && all(&self.groups, &other.groups) && resources && names && urls
    }

    /// One rule per verb, group, resource and name, or per verb and URL.
    pub(super) fn break_down(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let names: Vec<Vec<String>> =
                        if self.names.is_empty() { vec![Vec::new()] } else { self.names.iter().map(|n| vec![n.clone()]).collect() };
                    for names in names {
                        let (groups, resources, verbs) = (vec![group.clone()], vec![resource.clone()], vec![verb.clone()]);
                        out.push(Rule { verbs, groups, resources, names, urls: Vec::new() });
                    }
                }
            }
        }
        for url in &self.urls {
            for verb in &self.verbs {
                out.push(Rule { verbs: vec![verb.clone()], urls: vec![url.clone()], ..Rule::default() });
            }
        }
        out
    }

    /// Upstream's `CompactString`: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
    pub fn compact_string(&self) -> String {
        let mut parts = Vec::new();
        let lists = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        for (name, list) in lists {
            if !list.is_empty() {
                let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|v| v == "*" || v == value)
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

fn url_covers(owner: &str, want: &str) -> bool {
    owner == "*" || owner == want || owner.strip_suffix('*').is_some_and(|prefix| want.starts_with(prefix))
}
