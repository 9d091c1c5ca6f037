//! The audit policy: which requests are noted, and how much of them (`audit.k8s.io/v1` Policy). The first rule that matches
//! decides.

use machinery::object::str_at;
use serde_json::Value;

use crate::request::RequestInfo;

/// How much is noted. Each level has all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse].into_iter().find(|l| l.name() == text)
    }
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic].into_iter().find(|s| s.name() == text)
    }
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    verdict: Verdict,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    let parse = |text: String| Stage::parse(&text).ok_or_else(|| format!("omitStages: Unsupported value: {text:?}"));
    texts(value, "omitStages").into_iter().map(parse).collect()
}

const FIELDS: [&str; 9] =
    ["level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages", "omitManagedFields"];

impl Policy {
    /// Reads a policy file, YAML or JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = machinery::yaml::parse(bytes).map_err(|e| e.to_string())?.value;
        if str_at(&value, "kind") != "Policy" || str_at(&value, "apiVersion") != "audit.k8s.io/v1" {
            return Err(format!("unknown group version kind {} {}", str_at(&value, "apiVersion"), str_at(&value, "kind")));
        }
        let (omit, managed) = (stages(&value)?, value.get("omitManagedFields").and_then(Value::as_bool).unwrap_or(false));
        let rules: Vec<Rule> = list(&value, "rules")
            .iter()
            .enumerate()
            .map(|(i, rule)| Rule::parse(rule, &omit, managed).map_err(|e| format!("rules[{i}].{e}")))
            .collect::<Result<_, _>>()?;
        if rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        Ok(Self { rules })
    }

    pub fn judge(&self, user: Option<&auth::User>, info: &RequestInfo) -> Verdict {
        let nothing = Verdict { level: Level::None, omit_stages: Vec::new(), omit_managed_fields: false };
        self.rules.iter().find(|r| r.matches(user, info)).map_or(nothing, |r| r.verdict.clone())
    }
}

impl Rule {
    fn parse(rule: &Value, omit: &[Stage], managed: bool) -> Result<Self, String> {
        if let Some(unknown) = rule.as_object().and_then(|r| r.keys().find(|k| !FIELDS.contains(&k.as_str()))) {
            return Err(format!("{unknown}: unknown field"));
        }
        let level = Level::parse(str_at(rule, "level")).ok_or_else(|| format!("level: Unsupported value: {:?}", str_at(rule, "level")))?;
        let mut omit_stages = stages(rule)?;
        omit_stages.extend(omit);
        let resources: Vec<Resources> = list(rule, "resources")
            .iter()
            .map(|r| Resources { group: str_at(r, "group").to_owned(), resources: texts(r, "resources"), names: texts(r, "resourceNames") })
            .collect();
        let urls = texts(rule, "nonResourceURLs");
        if !(urls.is_empty() || resources.is_empty() && list(rule, "namespaces").is_empty()) {
            return Err("nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs".to_owned());
        }
        if let Some(bad) = urls.iter().find(|u| *u != "*" && (!u.starts_with('/') || u.trim_end_matches('*').contains('*'))) {
            return Err(format!("nonResourceURLs: Invalid value: {bad:?}"));
        }
        if let Some(bad) = resources.iter().find(|r| !r.names.is_empty() && r.resources.is_empty()) {
            return Err(format!("resources: Invalid value: {:?}: using resourceNames requires at least one resource", bad.names));
        }
        let omit_managed_fields = rule.get("omitManagedFields").and_then(Value::as_bool).unwrap_or(managed);
        Ok(Self {
            verdict: Verdict { level, omit_stages, omit_managed_fields },
            users: texts(rule, "users"),
            groups: texts(rule, "userGroups"),
            verbs: texts(rule, "verbs"),
            resources,
            namespaces: texts(rule, "namespaces"),
            urls,
        })
    }

    fn matches(&self, user: Option<&auth::User>, info: &RequestInfo) -> bool {
        let is_user = self.users.is_empty() || user.is_some_and(|u| self.users.contains(&u.name));
        let in_group = self.groups.is_empty() || user.is_some_and(|u| u.groups.iter().any(|g| self.groups.contains(g)));
        if !is_user || !in_group || !(self.verbs.is_empty() || self.verbs.contains(&info.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.resource(info);
        }
        let url = |spec: &String| match spec.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *spec == info.path,
        };
        self.urls.is_empty() || !info.is_resource && self.urls.iter().any(url)
    }

    fn resource(&self, info: &RequestInfo) -> bool {
        if !info.is_resource || !(self.namespaces.is_empty() || self.namespaces.contains(&info.namespace)) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|r| r.matches(info))
    }
}

impl Resources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        let named = self.names.is_empty() || self.names.contains(&info.name);
        let one = |wanted: &String| match (wanted.split_once('/'), info.subresource.as_str()) {
            _ if wanted == "*" => true,
            (None, "") => *wanted == info.resource,
            (Some(("*", sub)), asked) => !asked.is_empty() && sub == asked,
            (Some((resource, "*")), _) => resource == info.resource,
            (Some((resource, sub)), asked) => resource == info.resource && sub == asked,
            (None, _) => false,
        };
        self.resources.is_empty() || named && self.resources.iter().any(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Query;

    #[test]
    fn the_first_matching_rule_decides() {
        let policy = Policy::parse(
            br#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Metadata
  resources: [{group: "", resources: ["secrets", "pods/*", "*/token"]}]
- level: Request
  resources: [{group: "", resources: ["configmaps"], resourceNames: ["a"]}]
  namespaces: ["kube-system"]
  omitManagedFields: true
- level: RequestResponse
  userGroups: ["admins"]
"#,
        )
        .unwrap();
        let judge = |user: &str, groups: &[&str], method: &str, path: &str| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query));
            policy.judge(Some(&auth::User::new(user, groups)), &info)
        };
        let level = |user: &str, groups: &[&str], method: &str, path: &str| judge(user, groups, method, path).level;
        assert_eq!(level("system:kube-proxy", &["admins"], "GET", "/api/v1/services?watch=1"), Level::None);
        assert_eq!(level("x", &["admins"], "GET", "/healthz/etcd"), Level::None);
        assert_eq!(level("x", &["admins"], "GET", "/versions"), Level::RequestResponse);
        assert_eq!(level("x", &[], "GET", "/api/v1/namespaces/a/secrets/s"), Level::Metadata);
        assert_eq!(level("x", &[], "GET", "/api/v1/namespaces/a/pods/p"), Level::Metadata);
        assert_eq!(level("x", &[], "GET", "/api/v1/namespaces/a/pods/p/log"), Level::Metadata);
        assert_eq!(level("x", &[], "POST", "/api/v1/namespaces/a/serviceaccounts/s/token"), Level::Metadata);
        assert_eq!(level("x", &[], "GET", "/api/v1/namespaces/kube-system/configmaps/b"), Level::None);
        let verdict = judge("x", &[], "GET", "/api/v1/namespaces/kube-system/configmaps/a");
        assert_eq!((verdict.level, verdict.omit_managed_fields, verdict.omit_stages), (Level::Request, true, vec![Stage::RequestReceived]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
            "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, user: [a]}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, omitStages: [Never]}]",
        ] {
            assert!(Policy::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
