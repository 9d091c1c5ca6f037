//! Field ownership: which manager set which field. Every writer goes through [`on_update`]; server-side apply is [`apply`].
//!
//! Follows structured-merge-diff and upstream's `fieldmanager`. Works on decoded trees and their types; knows no clock.

mod compare;
mod configuration;
mod managed;
mod merge;
pub mod scale;
mod set;
mod settle;
mod typed;

use serde_json::{Value, json};

use self::managed::Entry;
use self::set::{Set, difference, exclude, intersection, strip, union};
use crate::schema::{TypeId, Types};
use crate::status::{Cause, Details, StatusError};

pub use self::configuration::apply_configuration;
pub use self::set::paths;
pub use self::typed::go_print;

/// Fields the system owns: no manager gets them.
const STRIPPED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// The manager that owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// The version the request came in: `apps/v1`.
    pub api_version: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Now, RFC 3339 in seconds.
    pub time: &'a str,
    /// Dotted paths that this endpoint does not write: `status`.
    pub reset_fields: &'a [String],
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// The object is not of its type; the text is the typed parser's.
    #[error("{0}")]
    Typed(String),
    /// Others own fields that would change.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// `metadata.managedFields` was given.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"m1" using v1`
    pub manager: String,
    /// `.spec.replicas`
    pub path: String,
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("conflict with {}: {}", one.manager, one.path);
    }
    let mut out: Vec<String> = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            out.push(format!("conflicts with {}:", conflict.manager));
            last = Some(&conflict.manager);
        }
        out.push(format!("- {}", conflict.path));
    }
    out.join("\n")
}

impl ApplyError {
    /// The answer to a client. `what` is the object as upstream names it here: `default/a; apps/v1, Kind=Deployment`.
    pub fn to_status(&self, what: &str) -> StatusError {
        match self {
            Self::ManagedFieldsGiven => StatusError::bad_request(self.to_string()),
            Self::Typed(text) => StatusError::new(500, "", format!("failed to create typed patch object ({what}): {text}")),
            Self::Conflicts(conflicts) => {
                let noun = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
                let causes = conflicts
                    .iter()
                    .map(|c| Cause {
                        reason: "FieldManagerConflict".to_owned(),
                        message: format!("conflict with {}", c.manager),
                        field: c.path.clone(),
                    })
                    .collect();
                let message = format!("Apply failed with {} {noun}: {self}", conflicts.len());
                let details = Details { causes, ..Details::default() };
                StatusError { code: 409, reason: "Conflict", message, details: Some(Box::new(details)) }
            }
        }
    }
}

/// Accounts a create (`old` is `None`), update or patch to its manager: rewrites `metadata.managedFields` of `new`. Both are
/// decoded and defaulted objects of type `ty`. As upstream, call it before admission and before the strategy's `prepare_*`: what
/// those set belongs to nobody.
pub fn on_update(types: &Types, ty: TypeId, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let live = |old: Option<&Value>| old.and_then(managed::read).unwrap_or_default();
    let mut entries = if writer.subresource.is_empty() {
        if managed::is_reset(new) { Vec::new() } else { managed::read(new).filter(|e| !e.is_empty()).unwrap_or_else(|| live(old)) }
    } else {
        live(old)
    };
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    // An update of an object that nobody is known to manage starts no tracking.
    if entries.is_empty() && old.is_some_and(|o| !crate::object::uid(o).is_empty()) {
        return;
    }
    let zero;
    let old = match old {
        Some(old) => old,
        None => {
            zero = crate::decode::zero(types, ty);
            &zero
        }
    };
    settle::settle(types, ty, &mut entries);
    account(types, ty, old, new, writer, &mut entries);
    managed::cap(&mut entries);
    managed::write(new, entries);
}

/// Takes what changed from others and gives it to the writer. An object that is not of its type changes nothing, as upstream.
fn account(types: &Types, ty: TypeId, old: &Value, new: &Value, writer: &Writer<'_>, entries: &mut Vec<Entry>) {
    let Ok(mut changes) = compare::compare(types, ty, old, new) else { return };
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        exclude(set, writer.reset_fields);
    }
    let taken = union(&changes.added, &changes.modified);
    take(entries, &taken, &changes.removed);
    let mine = strip(&taken, &STRIPPED);
    if mine.is_empty() {
        return;
    }
    let entry = Entry {
        manager: writer.manager.to_owned(),
        applied: false,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: writer.time.to_owned(),
        set: mine,
    };
    match entries.iter_mut().find(|e| e.same_manager(&entry)) {
        Some(previous) => *previous = Entry { set: union(&entry.set, &previous.set), ..entry },
        None => entries.push(entry),
    }
}

fn take(entries: &mut Vec<Entry>, taken: &Set, removed: &Set) {
    for entry in entries.iter_mut() {
        if !taken.is_empty() {
            entry.set = difference(&entry.set, taken);
        }
        if !removed.is_empty() {
            entry.set = difference(&entry.set, removed);
        }
    }
    entries.retain(|e| !e.set.is_empty());
}

/// The outcome of an apply: the merged object, not yet decoded and defaulted, with its managed fields.
#[derive(Debug)]
pub struct Applied {
    pub object: Value,
    /// Nothing but managed fields may differ from the live object.
    pub unchanged: bool,
}

/// Server-side apply of `config` onto `live` (`None` creates). `force` takes conflicting fields from their owners.
pub fn apply(
    types: &Types,
    ty: TypeId,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    if crate::object::at(config, "metadata.managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    typed::validate(types, ty, config)?;
    let mut entries = live.and_then(managed::read).unwrap_or_default();
    settle::settle(types, ty, &mut entries);
    let zero = crate::decode::zero(types, ty);
    let mut bare = live.unwrap_or(&zero).clone();
    if let Some(metadata) = bare.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if entries.is_empty() && live.is_some() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        account(types, ty, &zero, &bare, &before, &mut entries);
    }
    let first = apply_once(types, ty, &bare, config, writer, force, entries.clone());
    let outcome = match first {
        // kubectl moves from client-side to server-side apply: what it applied before is its own.
        Err(ApplyError::Conflicts(conflicts)) if writer.manager == "kubectl" => {
            let own = last_applied(&bare).and_then(|last| compare::field_set(types, ty, &last).ok()).unwrap_or_default();
            let own = set::paths(&own);
            let left: Vec<Conflict> = conflicts.into_iter().filter(|c| !own.contains(&c.path)).collect();
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_once(types, ty, &bare, config, writer, true, entries)
        }
        other => other,
    };
    let (mut object, unchanged, entries) = outcome?;
    if writer.manager == "kubectl" && last_applied(&bare).is_some() {
        // Keeps the annotation of client-side apply in step.
        crate::object::map_mut(&mut object, "metadata.annotations").insert(LAST_APPLIED.to_owned(), json!(format!("{config}\n")));
    }
    managed::write(&mut object, entries);
    Ok(Applied { object, unchanged })
}

fn last_applied(object: &Value) -> Option<Value> {
    let text = object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    Some(crate::json::parse(text.as_bytes()).ok()?.value)
}

fn apply_once(
    types: &Types,
    ty: TypeId,
    live: &Value,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
    mut entries: Vec<Entry>,
) -> Result<(Value, bool, Vec<Entry>), ApplyError> {
    let merged = merge::merge(types, ty, live, config)?;
    let mut owned = compare::field_set(types, ty, config)?;
    exclude(&mut owned, writer.reset_fields);
    let mut mine = Entry {
        manager: writer.manager.to_owned(),
        applied: true,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: String::new(),
        set: owned,
    };
    let last = entries.iter().position(|e| e.same_manager(&mine)).map(|at| entries.remove(at));
    let object = match &last {
        Some(last) if !last.set.is_empty() => prune(types, ty, merged, &last.set, &entries, &mine)?,
        _ => merged,
    };
    let mut changes = compare::compare(types, ty, live, &object)?;
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        exclude(set, writer.reset_fields);
    }
    let taken = union(&changes.added, &changes.modified);
    let conflicts = conflicts(&entries, &taken);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    take(&mut entries, &taken, &changes.removed);
    let unchanged = *live == object;
    mine.set = strip(&mine.set, &STRIPPED);
    mine.time = if unchanged { last.map(|l| l.time).unwrap_or_default() } else { writer.time.to_owned() };
    if !mine.set.is_empty() {
        entries.push(mine);
    }
    Ok((object, unchanged, entries))
}

fn conflicts(entries: &[Entry], taken: &Set) -> Vec<Conflict> {
    let mut owners: Vec<&Entry> = entries.iter().collect();
    owners.sort_by(|a, b| {
        (&a.manager, !a.applied, &a.api_version, &a.subresource).cmp(&(&b.manager, !b.applied, &b.api_version, &b.subresource))
    });
    let mut out = Vec::new();
    for entry in owners {
        let manager = entry.describe();
        out.extend(paths(&intersection(&entry.set, taken)).into_iter().map(|path| Conflict { manager: manager.clone(), path }));
    }
    out
}

/// Takes out what the applier set last time and no longer does, unless somebody else owns it.
fn prune(types: &Types, ty: TypeId, merged: Value, last: &Set, others: &[Entry], mine: &Entry) -> Result<Value, ApplyError> {
    let named = |set: &Set| merge::with_named_fields(types, ty, set);
    let pruned = merge::remove(types, ty, &merged, &named(last))?;
    // What others, or this applier now, own comes back.
    let managed = others.iter().fold(mine.set.clone(), |all, e| union(&all, &e.set));
    let merged_set = compare::field_set(types, ty, &merged)?;
    let gone = |pruned: &Value| -> Result<Set, ApplyError> {
        Ok(difference(&named(&merged_set), &named(&compare::field_set(types, ty, pruned)?)))
    };
    let pruned = merge::remove(types, ty, &merged, &difference(&gone(&pruned)?, &named(&managed)))?;
    // And so does what went only because its parent did.
    merge::remove(types, ty, &merged, &intersection(&gone(&pruned)?, &named(last)))
}

/// Whether two objects differ in nothing but the times of their managed fields: such a write is none. Metadata is looked at last:
/// most writes change something else.
pub fn same_but_for_times(a: &Value, b: &Value) -> bool {
    same_but(a, b, "metadata", |_, _| true) && same_but(&a["metadata"], &b["metadata"], "managedFields", same_entries)
}

/// Whether two maps have the same keys and values; those of one key are judged by `same`.
fn same_but(a: &Value, b: &Value, key: &str, same: impl Fn(&Value, &Value) -> bool) -> bool {
    let (Some(x), Some(y)) = (a.as_object(), b.as_object()) else { return a == b };
    x.len() == y.len()
        && x.iter().all(|(k, value)| y.get(k).is_some_and(|other| if k == key { same(value, other) } else { value == other }))
}

fn same_entries(a: &Value, b: &Value) -> bool {
    let (Some(x), Some(y)) = (a.as_array(), b.as_array()) else { return a == b };
    let timed = |entry: &Value| usize::from(entry.get("time").is_some());
    let same = |a: &Value, b: &Value| {
        let (Some(x), Some(y)) = (a.as_object(), b.as_object()) else { return a == b };
        x.len() - timed(a) == y.len() - timed(b) && x.iter().all(|(key, value)| key == "time" || y.get(key) == Some(value))
    };
    x.len() == y.len() && x.iter().all(|entry| y.iter().any(|other| same(entry, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_times_of_managers_are_set_aside() {
        let object = |time: &str, manager: &str, n: u8| {
            json!({"metadata": {"name": "a", "managedFields": [
                {"manager": manager, "time": time}, {"manager": "m", "operation": "Apply"}]}, "spec": {"n": n}})
        };
        let a = object("1", "x", 1);
        assert!(same_but_for_times(&a, &object("2", "x", 1)));
        assert!(!same_but_for_times(&a, &object("1", "y", 1)) && !same_but_for_times(&a, &object("1", "x", 2)));
        let mut more = a.clone();
        more["metadata"]["labels"] = json!({});
        assert!(!same_but_for_times(&a, &more) && !same_but_for_times(&more, &a));
        let mut untimed = a.clone();
        untimed["metadata"]["managedFields"][0].as_object_mut().unwrap().remove("time");
        assert!(same_but_for_times(&a, &untimed));
    }
}
