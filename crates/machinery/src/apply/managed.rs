//! `metadata.managedFields`: reading, writing, order, and the cap on the number of update managers.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::owned::Owned;
use super::set::{Set, union};
use crate::gotime;

/// More `Update` managers than this are merged, the oldest first.
const UPDATE_MANAGERS_MAX: usize = 10;
/// Who owns the fields of merged managers.
const ANCIENT: &str = "ancient-changes";

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub manager: String,
    /// `Apply` instead of `Update`.
    pub applied: bool,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339; empty where there is none.
    pub time: String,
    pub set: Owned,
}

impl Entry {
    /// Whether both are the same manager. An applier is the same in all versions.
    pub fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    /// `"m" with subresource "status" using apps/v1`
    pub fn describe(&self) -> String {
        let mut out = crate::field::go_quote(&self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {}", crate::field::go_quote(&self.subresource)));
        }
        if !self.applied {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }

    /// How many members the entry has as it is written.
    pub fn members(&self) -> usize {
        3 + [&self.manager, &self.api_version, &self.time, &self.subresource].iter().filter(|text| !text.is_empty()).count()
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }

    /// Whether this is what the entry is written as.
    pub fn is(&self, value: &Value) -> bool {
        let Some(map) = value.as_object().filter(|map| map.len() == self.members()) else { return false };
        let is = |key: &str, text: &str| text.is_empty() || map.get(key).is_some_and(|v| v == text);
        is("manager", &self.manager)
            && is("operation", self.operation())
            && is("apiVersion", &self.api_version)
            && is("time", &self.time)
            && is("subresource", &self.subresource)
            && is("fieldsType", "FieldsV1")
            && map.get("fieldsV1").and_then(Value::as_object) == Some(&self.set)
    }

    /// Appends the entry as it is written; its members come sorted.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, key: &str, text: &str| {
            if !text.is_empty() {
                out.extend_from_slice(key.as_bytes());
                push_text(out, text);
            }
        };
        text(out, r#"{"apiVersion":"#, &self.api_version);
        out.extend_from_slice(br#","fieldsType":"FieldsV1","fieldsV1":"#);
        out.extend_from_slice(self.set.json());
        text(out, r#","manager":"#, &self.manager);
        text(out, r#","operation":"#, self.operation());
        text(out, r#","subresource":"#, &self.subresource);
        text(out, r#","time":"#, &self.time);
        out.push(b'}');
    }

    pub fn into_value(self) -> Value {
        let mut out = Map::new();
        let operation = self.operation();
        for (key, text) in [
            ("manager", self.manager),
            ("operation", operation.to_owned()),
            ("apiVersion", self.api_version),
            ("time", self.time),
            ("subresource", self.subresource),
        ] {
            if !text.is_empty() {
                out.insert(key.to_owned(), Value::String(text));
            }
        }
        out.insert("fieldsType".to_owned(), json!("FieldsV1"));
        out.insert("fieldsV1".to_owned(), Value::Object(self.set.into_set()));
        Value::Object(out)
    }

    fn seconds(&self) -> i64 {
        gotime::parse_rfc3339(&self.time).map_or(0, |t| t.seconds)
    }
}

/// A text as JSON.
fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| (b' '..0x7f).contains(&b) && !matches!(b, b'"' | b'\\')) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}

/// The entries of an object; `None` where one is malformed.
pub(super) fn read(object: &Value) -> Option<Vec<Entry>> {
    let Some(list) = crate::object::at(object, "metadata.managedFields").and_then(Value::as_array) else { return Some(Vec::new()) };
    collect(list.iter().cloned())
}

/// As [`read`], of what was taken out of an object.
pub(super) fn of_list(list: Value) -> Option<Vec<Entry>> {
    let Value::Array(list) = list else { return Some(Vec::new()) };
    collect(list.into_iter())
}

fn collect(list: impl ExactSizeIterator<Item = Value>) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    for entry in list {
        let entry = read_entry(entry)?;
        // Of two entries of one manager the later counts (upstream decodes them into a map).
        match entries.iter_mut().find(|e| e.same_manager(&entry)) {
            Some(earlier) => *earlier = entry,
            None => entries.push(entry),
        }
    }
    Some(entries)
}

/// Whether the client asked to forget all managers: an empty list, or a single empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    match crate::object::at(object, "metadata.managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(|m| m.values().all(|v| v.is_null() || v == "")),
        _ => false,
    }
}

pub(super) fn read_entry(value: Value) -> Option<Entry> {
    let mut map = match value {
        Value::Object(map) => map,
        _ => return None,
    };
    let mut text = |key: &str| match map.remove(key) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let applied = match text("operation").as_str() {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    let (api_version, fields_type) = (text("apiVersion"), text("fieldsType"));
    if api_version.is_empty() || fields_type != "FieldsV1" {
        return None;
    }
    let (manager, subresource, time) = (text("manager"), text("subresource"), text("time"));
    let set = match map.remove("fieldsV1") {
        Some(Value::Object(set)) => set,
        None | Some(Value::Null) => Set::new(),
        Some(_) => return None,
    };
    Some(Entry { manager, applied, api_version, subresource, time, set: set.into() })
}

/// Upstream's order.
pub(super) fn order(a: &Entry, b: &Entry) -> Ordering {
    let key = |e: &Entry| (!e.applied, e.seconds());
    key(a)
        .cmp(&key(b))
        .then_with(|| a.manager.cmp(&b.manager))
        .then_with(|| a.api_version.cmp(&b.api_version))
        .then_with(|| a.subresource.cmp(&b.subresource))
}

/// Puts the entries into an object, in order; removes the field where there are none.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(order);
    let metadata = crate::object::metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), entries.into_iter().map(Entry::into_value).collect());
    }
}

/// Merges the oldest updaters per version until no more than ten are left.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..entries.len()).filter(|i| !entries[*i].applied).collect();
    if updaters.len() <= UPDATE_MANAGERS_MAX {
        return;
    }
    updaters.sort_by(|a, b| {
        let (a, b) = (&entries[*a], &entries[*b]);
        a.seconds().cmp(&b.seconds()).then_with(|| a.manager.cmp(&b.manager)).then_with(|| a.subresource.cmp(&b.subresource))
    });
    let mut count = updaters.len();
    let mut gone = vec![false; entries.len()];
    let mut first_of: Vec<(String, usize)> = Vec::new();
    for at in updaters {
        if count <= UPDATE_MANAGERS_MAX {
            break;
        }
        let version = entries[at].api_version.clone();
        match first_of.iter().find(|(v, _)| *v == version).map(|(_, first)| *first) {
            None => first_of.push((version, at)),
            Some(first) => {
                let merged = union(&entries[first].set, &entries[at].set);
                let time = entries[at].time.clone();
                let bucket = &mut entries[first];
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                (bucket.set, bucket.time) = (merged.into(), time);
                gone[at] = true;
                count -= 1;
            }
        }
    }
    let mut gone = gone.into_iter();
    entries.retain(|_| !gone.next().unwrap_or(false));
}
