//! What is asked for, and the answer: upstream's `authorizer.Attributes` and `authorizer.Decision`, and the text of a 403.

use machinery::gvk::GroupResource;
use machinery::status::StatusError;
use machinery::{fieldselector, labels};

use crate::user::User;

/// One request as authorizers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: User,
    /// `get`, `list`, ...; for other paths the lower-case HTTP method.
    pub verb: String,
    pub namespace: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// A resource request; otherwise only `path` counts.
    pub is_resource: bool,
    pub path: String,
    /// What lists, watches and deletions of collections are limited to, where it parsed.
    pub field_selector: Vec<fieldselector::Term>,
    pub label_selector: Vec<labels::Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Ask the next one; at the end of the chain it is a no.
    NoOpinion(String),
    Deny(String),
}

impl Attributes {
    /// `pods/log`, or the resource alone.
    pub fn combined_resource(&self) -> String {
        if self.subresource.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether the field selector demands that the field have the value.
    pub fn selects_field(&self, field: &str, value: &str) -> bool {
        self.field_selector.iter().any(|t| !t.negated && t.field == field && t.value == value)
    }

    /// Upstream's `responsewriters.ForbiddenStatusError`.
    pub fn forbidden(&self, reason: &str) -> StatusError {
        let text = self.forbidden_message();
        let why = if reason.is_empty() { text } else { format!("{text}: {reason}") };
        StatusError::forbidden(&GroupResource::new(self.group.clone(), self.resource.clone()), &self.name, &why)
    }

    fn forbidden_message(&self) -> String {
        let user = if self.user.name.is_empty() { String::new() } else { format!("User {:?} ", self.user.name) };
        let verb = &self.verb;
        if !self.is_resource {
            return format!("{user}cannot {verb} path {:?}", self.path);
        }
        let resource = self.combined_resource();
        let start = format!("{user}cannot {verb} resource {resource:?} in API group {:?}", self.group);
        if self.namespace.is_empty() {
            format!("{start} at the cluster scope")
        } else {
            format!("{start} in the namespace {:?}", self.namespace)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_403_reads_as_upstream_writes_it() {
        let mut a = Attributes {
            user: User::new("bob", &[]),
            verb: "list".into(),
            namespace: "ns".into(),
            resource: "pods".into(),
            is_resource: true,
            ..Attributes::default()
        };
        let text = a.forbidden("").message;
        assert_eq!(text, "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\"");
        a.namespace.clear();
        a.group = "apps".into();
        a.resource = "deployments".into();
        a.subresource = "status".into();
        a.name = "d".into();
        assert_eq!(
            a.forbidden("why").message,
            "deployments.apps \"d\" is forbidden: User \"bob\" cannot list resource \"deployments/status\" in API group \"apps\" at the cluster scope: why"
        );
        let path = Attributes { verb: "get".into(), path: "/x".into(), user: User::anonymous(), ..Attributes::default() };
        assert_eq!(path.forbidden("").message, "forbidden: User \"system:anonymous\" cannot get path \"/x\"");
    }
}
