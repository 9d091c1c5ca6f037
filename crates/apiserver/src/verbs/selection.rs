//! Which objects of a collection a list, watch or deletecollection is about: label and field selectors, checked against what
//! the resource knows, and what part of the cache they need to look at.

use kinds::Resource;
use machinery::status::StatusError;
use machinery::{fieldselector, labels};

use super::Target;
use crate::attributes::{self, Source};
use crate::cache::{Entry, Filter, Interest};
use crate::registry;

#[derive(Clone, Debug)]
pub struct Selection {
    labels: labels::Selector,
    fields: Vec<Term>,
    namespaced: bool,
}

/// `field=value`, with where the field is and what it reads as when it is not set.
#[derive(Clone, Debug)]
struct Term {
    source: Source,
    default: Box<str>,
    value: Box<str>,
    negated: bool,
}

/// The part of a cache that can hold what is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Of the keys.
    pub prefix: String,
    pub interest: Interest,
}

impl Selection {
    pub fn parse(resource: &Resource, label_selector: &str, field_selector: &str) -> Result<Self, StatusError> {
        let labels = labels::parse(label_selector).map_err(StatusError::bad_request)?;
        let parsed = fieldselector::parse(field_selector).map_err(StatusError::bad_request)?;
        let mut fields = Vec::with_capacity(parsed.terms.len());
        for term in parsed.terms {
            let Some((source, default)) = attributes::source(resource, &term.field) else {
                return Err(StatusError::bad_request(resource.selector_rejection.replace("{field}", &term.field)));
            };
            fields.push(Term { source, default: default.into(), value: term.value.into(), negated: term.negated });
        }
        Ok(Self { labels, fields, namespaced: resource.namespaced })
    }

    /// Whether something that has nothing but a name, and no namespace, is selected.
    pub fn names(&self, name: &str) -> bool {
        let fields = self.fields.iter().all(|term| {
            let found = if matches!(term.source, Source::Name) { name } else { "" };
            (found == &*term.value) != term.negated
        });
        fields && self.labels.matches(&crate::cache::Attributes::default())
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The value a field must have.
    fn required(&self, source: Source) -> Option<&str> {
        self.fields.iter().find(|t| t.source == source && !t.negated).map(|t| &*t.value)
    }

    /// Where in the cache to look for what is selected from a place.
    pub fn scope(&self, target: &Target) -> Scope {
        let resource = &target.resource;
        let mut namespace = target.namespace.as_str();
        if namespace.is_empty() && resource.namespaced {
            namespace = self.required(Source::Namespace).filter(|n| !n.is_empty() && !n.contains('/')).unwrap_or("");
        }
        let name = self.required(Source::Name).filter(|n| !n.is_empty() && !n.contains('/'));
        if let Some(name) = name
            && resource.namespaced != namespace.is_empty()
        {
            let key = registry::key(resource, namespace, name);
            return Scope { interest: Interest::Key(key.as_str().into()), prefix: key };
        }
        let prefix = registry::prefix(resource, namespace);
        let indexed = attributes::indexed(resource).and_then(|at| self.required(Source::Field(at))).filter(|v| !v.is_empty());
        let interest = match indexed {
            Some(value) => Interest::Value(value.into()),
            None if namespace.is_empty() => Interest::All,
            None => Interest::Namespace(prefix.as_str().into()),
        };
        Scope { prefix, interest }
    }
}

impl Filter for Selection {
    fn is_everything(&self) -> bool {
        Selection::is_everything(self)
    }

    fn matches(&self, entry: &Entry) -> bool {
        let fields = self.fields.iter().all(|term| {
            let found = match term.source {
                Source::Name => entry.name(),
                Source::Namespace if self.namespaced => entry.namespace(),
                Source::Field(at) => entry.attributes.field(at),
                Source::Namespace | Source::Absent => "",
            };
            let value = if found.is_empty() { &*term.default } else { found };
            (*value == *term.value) != term.negated
        });
        fields && self.labels.matches(&entry.attributes)
    }
}

#[cfg(test)]
mod tests {
    use store::Revision;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn a_selector_narrows_what_must_be_looked_at() {
        let cases = [
            ("pods", "", "", "/registry/pods/", Interest::All),
            ("pods", "a", "", "/registry/pods/a/", Interest::Namespace("/registry/pods/a/".into())),
            ("pods", "", "metadata.namespace=a", "/registry/pods/a/", Interest::Namespace("/registry/pods/a/".into())),
            ("pods", "a", "metadata.name=x", "/registry/pods/a/x", Interest::Key("/registry/pods/a/x".into())),
            ("pods", "", "metadata.name=x", "/registry/pods/", Interest::All),
            ("pods", "a", "metadata.name=../x", "/registry/pods/a/", Interest::Namespace("/registry/pods/a/".into())),
            ("pods", "a", "metadata.name!=x", "/registry/pods/a/", Interest::Namespace("/registry/pods/a/".into())),
            ("pods", "", "spec.nodeName=n", "/registry/pods/", Interest::Value("n".into())),
            ("pods", "a", "spec.nodeName=n", "/registry/pods/a/", Interest::Value("n".into())),
            ("pods", "", "spec.nodeName=", "/registry/pods/", Interest::All),
            ("nodes", "", "metadata.name=n", "/registry/minions/n", Interest::Key("/registry/minions/n".into())),
        ];
        for (resource, namespace, fields, prefix, interest) in cases {
            let resource = Registry::default().resource("", "v1", resource).unwrap();
            let selection = Selection::parse(&resource, "", fields).unwrap();
            let target = Target { resource, namespace: namespace.to_owned(), name: String::new(), subresource: String::new() };
            assert_eq!(selection.scope(&target), Scope { prefix: prefix.to_owned(), interest }, "{namespace} {fields}");
        }
    }

    #[test]
    fn entries_are_matched_by_key_labels_and_fields() {
        let resource = Registry::default().resource("", "v1", "pods").unwrap();
        let bytes = r#"{"metadata":{"name":"x","labels":{"a":"1"}},"spec":{"nodeName":"n"}}"#;
        let key = "/registry/pods/ns/x";
        let item = store::KeyValue { key: key.into(), value: bytes.into(), mod_revision: Revision(5), create_revision: Revision(5) };
        let entry = Entry::new(&item, &attributes::extract(&resource));
        for (labels, fields, wanted) in [
            ("a=1", "metadata.name=x,metadata.namespace=ns", true),
            ("", "metadata.namespace!=ns", false),
            ("a!=1", "", false),
            ("!b", "spec.nodeName=n", true),
            ("", "spec.nodeName!=n", false),
            ("", "status.podIP=", true),
        ] {
            let selection = Selection::parse(&resource, labels, fields).unwrap();
            assert_eq!(selection.matches(&entry), wanted, "{labels} {fields}");
        }
    }
}
