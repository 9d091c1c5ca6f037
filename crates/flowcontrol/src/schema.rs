//! FlowSchemas: which requests one matches, and what tells its flows apart (upstream's `rule.go`). Nothing is allocated for a
//! request.

use serde_json::Value;

/// What of a request counts here.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub path: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSchema {
    pub name: String,
    pub uid: String,
    pub precedence: u32,
    pub level: String,
    pub distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    others: Vec<NonResourceRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NonResourceRule {
    verbs: Vec<String>,
    urls: Vec<String>,
}

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    items(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl FlowSchema {
    /// Reads the object. `None` for one without a name.
    pub fn parse(object: &Value) -> Option<Self> {
        let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let distinguisher = match spec.pointer("/distinguisherMethod/type").and_then(Value::as_str) {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        let precedence = spec.get("matchingPrecedence").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        Some(Self {
            name,
            uid: text(object, "/metadata/uid"),
            precedence: precedence.unwrap_or(1000),
            level: text(spec, "/priorityLevelConfiguration/name"),
            distinguisher,
            rules: items(spec, "rules").iter().map(Rule::parse).collect(),
        })
    }

    pub fn matches(&self, request: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(request))
    }

    /// What tells this request's flow from others of the schema.
    pub fn flow<'a>(&self, request: &Digest<'a>) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => request.user,
            Distinguisher::Namespace => request.namespace,
        }
    }
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        let resources = items(rule, "resourceRules").iter().map(|r| ResourceRule {
            verbs: texts(r, "verbs"),
            groups: texts(r, "apiGroups"),
            resources: texts(r, "resources"),
            cluster_scope: r.get("clusterScope").and_then(Value::as_bool).unwrap_or(false),
            namespaces: texts(r, "namespaces"),
        });
        let others = items(rule, "nonResourceRules");
        Self {
            subjects: items(rule, "subjects").iter().filter_map(Subject::parse).collect(),
            resources: resources.collect(),
            others: others.iter().map(|r| NonResourceRule { verbs: texts(r, "verbs"), urls: texts(r, "nonResourceURLs") }).collect(),
        }
    }

    fn matches(&self, request: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|s| s.matches(request)) {
            return false;
        }
        if request.is_resource { self.resources.iter().any(|r| r.matches(request)) } else { self.others.iter().any(|r| r.matches(request)) }
    }
}

impl Subject {
    fn parse(subject: &Value) -> Option<Self> {
        match subject.get("kind").and_then(Value::as_str)? {
            "User" => Some(Self::User(text(subject, "/user/name"))),
            "Group" => Some(Self::Group(text(subject, "/group/name"))),
            "ServiceAccount" => Some(Self::ServiceAccount {
                namespace: text(subject, "/serviceAccount/namespace"),
                name: text(subject, "/serviceAccount/name"),
            }),
            _ => None,
        }
    }

    fn matches(&self, request: &Digest<'_>) -> bool {
        match self {
            Self::User(name) => name == "*" || name == request.user,
            Self::Group(name) => name == "*" || request.groups.iter().any(|g| g == name),
            Self::ServiceAccount { namespace, name } => {
                let account = request.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(ns, account)| ns == namespace && !account.contains(':') && (name == "*" || name == account))
            }
        }
    }
}

fn any(list: &[String], text: &str) -> bool {
    list.iter().any(|t| t == "*" || t == text)
}

impl ResourceRule {
    fn matches(&self, request: &Digest<'_>) -> bool {
        let resource = |wanted: &String| match (wanted.split_once('/'), request.subresource) {
            (None, "") => wanted == request.resource,
            (Some((resource, sub)), asked) if !asked.is_empty() => resource == request.resource && sub == asked,
            _ => false,
        };
        any(&self.verbs, request.verb)
            && self.resources.iter().any(|r| r == "*" || resource(r))
            && any(&self.groups, request.group)
            && if request.namespace.is_empty() { self.cluster_scope } else { any(&self.namespaces, request.namespace) }
    }
}

impl NonResourceRule {
    fn matches(&self, request: &Digest<'_>) -> bool {
        let path = |url: &String| match url.strip_suffix('*') {
            Some("") => true,
            Some(prefix) if prefix.ends_with('/') => request.path.starts_with(prefix),
            _ => url == request.path,
        };
        any(&self.verbs, request.verb) && self.urls.iter().any(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults;

    fn first(user: &str, groups: &[&str], verb: &str, what: (&str, &str, &str, &str), path: &str) -> String {
        let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        let (group, resource, subresource, namespace) = what;
        let is_resource = !resource.is_empty();
        let digest = Digest { user, groups: &groups, verb, is_resource, group, resource, subresource, namespace, path };
        let mut all: Vec<FlowSchema> = defaults::flow_schemas().iter().filter_map(FlowSchema::parse).collect();
        all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        all.iter().find(|s| s.matches(&digest)).map(|s| s.name.clone()).unwrap_or_default()
    }

    #[test]
    fn requests_find_upstreams_schemas() {
        let (auth, nodes, accounts) = ("system:authenticated", "system:nodes", "system:serviceaccounts");
        let pods = ("", "pods", "", "default");
        let leases = ("coordination.k8s.io", "leases", "", "kube-system");
        let cases = [
            (first("admin", &["system:masters", auth], "delete", pods, ""), "exempt"),
            (first("x", &["system:unauthenticated"], "get", ("", "", "", ""), "/readyz"), "probes"),
            (first("x", &["system:unauthenticated"], "get", ("", "", "", ""), "/readyz/ping"), "global-default"),
            (first("x", &["other"], "get", ("", "", "", ""), "/readyz"), ""),
            (first("system:kube-scheduler", &[auth], "update", leases, ""), "system-leader-election"),
            (first("system:kube-scheduler", &[auth], "list", leases, ""), "kube-scheduler"),
            (
                first("system:node:n", &[nodes, auth], "update", ("coordination.k8s.io", "leases", "", "kube-node-lease"), ""),
                "system-node-high",
            ),
            (first("system:node:n", &[nodes, auth], "patch", ("", "nodes", "status", ""), ""), "system-node-high"),
            (first("system:node:n", &[nodes, auth], "get", ("", "nodes", "proxy", ""), ""), "system-nodes"),
            (first("system:node:n", &[nodes, auth], "get", pods, ""), "system-nodes"),
            (first("system:serviceaccount:kube-system:x", &[accounts, auth], "get", pods, ""), "kube-system-service-accounts"),
            (first("system:serviceaccount:default:x", &[accounts, auth], "get", pods, ""), "service-accounts"),
            (first("jane", &[auth], "get", pods, ""), "global-default"),
        ];
        for (got, want) in cases {
            assert_eq!(got, want);
        }
    }
}
