//! What selectors can ask of a resource's objects, read from the stored bytes once per write without making a tree. Which
//! field is at which position of `cache::Attributes` is said here, for `verbs::selection` and for the watch cache.

use std::fmt;
use std::sync::Arc;

use kinds::Resource;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::cache::{Attributes, Extract};
use crate::registry::Snapshot;
use crate::{conversion, verbs};

/// The field most pod lists and watches are about: that of each kubelet.
const INDEXED: (&str, &str) = ("/registry/pods", "spec.nodeName");

/// Where a selectable field's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Name,
    Namespace,
    /// Its position in [`Attributes::fields`].
    Field(usize),
    /// Never set.
    Absent,
}

/// Where the field selector's label leads to; `None`: the resource does not know it.
pub fn source<'a>(resource: &'a Resource, label: &str) -> Option<(Source, &'a str)> {
    let known = resource.selectable.iter().find(|s| s.label == label)?;
    let source = match (label, known.path.as_str()) {
        ("metadata.name", _) => Source::Name,
        ("metadata.namespace", _) => Source::Namespace,
        (_, "") => Source::Absent,
        _ => positions(resource).iter().position(|(_, l)| *l == label).map_or(Source::Absent, Source::Field),
    };
    Some((source, &known.default))
}

/// The position of the indexed field, if the resource has one.
pub fn indexed(resource: &Resource) -> Option<usize> {
    let (prefix, label) = INDEXED;
    (resource.storage_prefix == prefix).then(|| positions(resource).iter().position(|(_, l)| *l == label)).flatten()
}

/// The fields of all versions under a storage prefix: the row that has it, and its label.
fn positions(resource: &Resource) -> Vec<(&Resource, &str)> {
    // A version of a custom resource has a cache of its own.
    let shared = kinds::table().resources().iter().filter(|r| resource.custom.is_none() && r.storage_prefix == resource.storage_prefix);
    let mut out: Vec<(&Resource, &str)> = Vec::new();
    for row in shared.map(|r| &**r).chain(resource.custom.is_some().then_some(resource)) {
        for known in &row.selectable {
            let special = known.path.is_empty() || matches!(known.label.as_str(), "metadata.name" | "metadata.namespace");
            if !special && out.iter().all(|(_, label)| *label != known.label) {
                out.push((row, &known.label));
            }
        }
    }
    out
}

/// The reader of all attributes of a resource's stored objects.
pub fn extract(resource: &Resource) -> Extract {
    let mut stored = Node::default();
    stored.at("metadata.labels").labels = true;
    // Fields that only another version of the kind has, with how to read them there.
    let mut converted: Vec<(usize, Arc<Resource>, Box<str>)> = Vec::new();
    let positions = positions(resource);
    for (position, (row, label)) in positions.iter().enumerate() {
        let Some(known) = row.selectable.iter().find(|s| s.label == *label) else { continue };
        if verbs::view::stored_as_served(row) {
            stored.at(&known.path).leaf = Some(position);
        } else {
            converted.push((position, Arc::new((*row).clone()), known.path.as_str().into()));
        }
    }
    let count = positions.len();
    let read = move |bytes: &[u8]| {
        let mut out = Attributes { labels: Vec::new(), fields: vec![Box::default(); count] };
        let mut json = serde_json::Deserializer::from_slice(bytes);
        if let Err(error) = (Reader { node: &stored, out: &mut out }).deserialize(&mut json) {
            tracing::error!(%error, "a stored object does not parse");
        }
        if !converted.is_empty() {
            other_versions(bytes, &converted, &mut out);
        }
        out
    };
    Extract { read: Arc::new(read), index: indexed(resource), serve: None }
}

fn other_versions(bytes: &[u8], wanted: &[(usize, Arc<Resource>, Box<str>)], out: &mut Attributes) {
    let stored = crate::codec::decode(bytes, store::Revision(0));
    let mut last: Option<(&Resource, serde_json::Value)> = None;
    for (position, row, path) in wanted {
        let object = match last.take() {
            Some((of, object)) if of.gvk() == row.gvk() => object,
            _ => conversion::from_storage(row, stored.clone()),
        };
        if let Some(text) = machinery::object::at(&object, path).and_then(serde_json::Value::as_str) {
            out.fields[*position] = text.into();
        }
        last = Some((row, object));
    }
}

/// Distinct stored kinds; for each one row.
pub fn stored_kinds(registry: &Snapshot) -> Vec<&Arc<Resource>> {
    let mut out: Vec<&Arc<Resource>> = Vec::new();
    for row in registry.resources().filter(|r| !r.storage_prefix.is_empty() && r.verbs.iter().any(|v| v == "watch")) {
        if out.iter().all(|r| r.storage_prefix != row.storage_prefix) {
            out.push(row);
        }
    }
    out
}

/// What is wanted of a JSON object.
#[derive(Default)]
struct Node {
    children: Vec<(Box<str>, Node)>,
    leaf: Option<usize>,
    labels: bool,
}

impl Node {
    /// The node at a dotted path, made when missing.
    fn at(&mut self, path: &str) -> &mut Node {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let position = self.children.iter().position(|(key, _)| **key == *first).unwrap_or_else(|| {
            self.children.push((first.into(), Node::default()));
            self.children.len() - 1
        });
        let node = &mut self.children[position].1;
        if rest.is_empty() { node } else { node.at(rest) }
    }
}

/// Reads one value by its node.
struct Reader<'a> {
    node: &'a Node,
    out: &'a mut Attributes,
}

impl Reader<'_> {
    fn leaf(self, text: &str) {
        if let Some(position) = self.node.leaf {
            self.out.fields[position] = text.into();
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.node.labels {
            while let Some(key) = map.next_key::<Box<str>>()? {
                let value: Option<Box<str>> = map.next_value()?;
                self.out.labels.push((key, value.unwrap_or_default()));
            }
            return Ok(());
        }
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(node) => map.next_value_seed(Reader { node, out: self.out })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.leaf(text);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.leaf(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.leaf(&value.to_string());
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.leaf(&value.to_string());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.leaf(&value.to_string());
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds the child that a key names, without copying the key.
struct Key<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(key, _)| **key == *text).map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn read(group: &str, resource: &str, json: &str) -> (Arc<Resource>, Attributes) {
        let row = Registry::default().resource(group, "v1", resource).unwrap();
        let attributes = (extract(&row).read)(json.as_bytes());
        (row, attributes)
    }

    fn value(row: &Resource, attributes: &Attributes, label: &str) -> String {
        match source(row, label) {
            Some((Source::Field(at), _)) => attributes.field(at).to_owned(),
            other => panic!("{label}: {other:?}"),
        }
    }

    #[test]
    fn labels_and_fields_are_read_wherever_they_are() {
        let pod = r#"{"kind":"Pod","metadata":{"annotations":{"labels":"x"},"labels":{"a":"1","b":"\"","c":""},"name":"p"},
            "spec":{"containers":[{"spec":{"nodeName":"no"}}],"hostNetwork":true,"nodeName":"n1"},"status":{"phase":null,"podIP":"10.0.0.1"}}"#;
        let (row, read) = read("", "pods", pod);
        assert_eq!((read.label("a"), read.label("b"), read.label("c"), read.label("labels")), (Some("1"), Some("\""), Some(""), None));
        assert_eq!(value(&row, &read, "spec.nodeName"), "n1");
        assert_eq!(value(&row, &read, "status.phase"), "");
        assert_eq!(value(&row, &read, "status.podIP"), "10.0.0.1");
        assert_eq!(value(&row, &read, "spec.hostNetwork"), "true");
        assert_eq!(extract(&row).index, indexed(&row));
        assert!(indexed(&row).is_some());
        assert_eq!(source(&row, "metadata.name").unwrap().0, Source::Name);
        assert!(source(&row, "spec.unheardOf").is_none());
    }

    #[test]
    fn events_are_selected_by_the_words_of_both_groups() {
        let event = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"reason":"R","involvedObject":{"kind":"Pod","name":"p"}}"#;
        let (core, attributes) = read("", "events", event);
        let (new, _) = read("events.k8s.io", "events", event);
        assert_eq!(value(&core, &attributes, "involvedObject.kind"), "Pod");
        assert_eq!(value(&new, &attributes, "regarding.name"), "p");
        assert_eq!((value(&core, &attributes, "reason"), value(&new, &attributes, "reason")), ("R".to_owned(), "R".to_owned()));
    }

    #[test]
    fn what_does_not_parse_has_no_attributes() {
        for bytes in ["", "{", "[]", "null", r#"{"metadata":{"labels":[1]}}"#, r#"{"metadata":{"labels":{"a":{}}}}"#] {
            assert_eq!(read("", "pods", bytes).1.labels, [], "{bytes}");
        }
    }
}
