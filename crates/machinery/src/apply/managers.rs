//! The owners of an object's fields apart from the object: what `metadata.managedFields` is while nobody looks at it. Taken out
//! of a tree when an object is read to be changed, handed from version to version of it, and written between the other members
//! of its metadata. Sets that do not change are neither copied nor written anew (`owned`).
//!
//! Only what is written just as this module would write it is taken out; anything else stays in the tree, and the tree's way
//! ([`super::on_update`], [`super::apply`]) brings it into this form. So either way gives the same bytes.

use serde_json::{Map, Value};

use super::managed::{self, Entry};
use super::set::is_canonical;
use super::settle;
use crate::schema::{TypeId, Types};

const FIELD: &str = "managedFields";

/// In the order they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// Takes the managers out of an object of a type; `None` leaves the object as it is.
    pub fn take_from(types: &Types, ty: TypeId, object: &mut Value) -> Option<Self> {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return Some(Self::default()) };
        let Some(list) = metadata.get(FIELD) else { return Some(Self::default()) };
        if !is_as_written(types, ty, list.as_array()?) {
            return None;
        }
        let entries = managed::of_list(metadata.remove(FIELD)?)?;
        Some(Self(entries))
    }

    /// Puts them into an object that has none.
    pub fn put_into(&self, object: &mut Value) {
        if !self.0.is_empty() {
            let list = self.0.iter().cloned().map(Entry::into_value).collect();
            crate::object::metadata_mut(object).insert(FIELD.to_owned(), list);
        }
    }

    /// Takes managers that an object brings out of it, if they are these: a client sends back what it has read. False leaves
    /// others, which count.
    pub fn take_same(&self, object: &mut Value) -> bool {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return true };
        let Some(list) = metadata.get(FIELD) else { return true };
        let same = list.as_array().is_some_and(|list| {
            !list.is_empty() && list.len() == self.0.len() && self.0.iter().zip(list).all(|(entry, value)| entry.is(value))
        });
        if same {
            metadata.remove(FIELD);
        }
        same
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the array they are written as.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, entry) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            entry.write_json(out);
        }
        out.push(b']');
    }

    /// Whether they own the same, at whatever times. Each entry is looked for among all, as upstream does.
    pub fn same_but_for_times(&self, other: &Self) -> bool {
        let same = |a: &Entry, b: &Entry| a.manager == b.manager && a.api_version == b.api_version && a.same_manager(b) && a.set == b.set;
        self.0.len() == other.0.len() && self.0.iter().all(|a| other.0.iter().any(|b| same(a, b)))
    }
}

/// Whether reading the list and writing it again gives just this.
fn is_as_written(types: &Types, ty: TypeId, list: &[Value]) -> bool {
    let head = |value: &Value| {
        let map = value.as_object()?;
        let set = map.get("fieldsV1")?.as_object()?;
        let bare: Map<String, Value> = map.iter().filter(|(k, _)| *k != "fieldsV1").map(|(k, v)| (k.clone(), v.clone())).collect();
        let head = managed::read_entry(Value::Object(bare))?;
        (head.members() == map.len() && is_canonical(set) && !settle::is_stale(types, Some(ty), set)).then_some(head)
    };
    let Some(heads) = list.iter().map(head).collect::<Option<Vec<Entry>>>() else { return false };
    let alone = |at: usize, head: &Entry| heads[..at].iter().all(|other| !other.same_manager(head));
    !heads.is_empty()
        && heads.windows(2).all(|two| managed::order(&two[0], &two[1]).is_le())
        && heads.iter().enumerate().all(|(at, head)| alone(at, head))
}
