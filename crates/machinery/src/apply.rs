//! Field ownership: which manager set which field. Every writer goes through [`on_update`]; server-side apply is [`apply`].
//!
//! Follows structured-merge-diff and upstream's `fieldmanager`. Works on decoded trees and their types; knows no clock.

mod compare;
mod configuration;
mod element;
mod managed;
mod managers;
mod merge;
mod owned;
pub mod scale;
mod set;
mod settle;
mod typed;

use serde_json::{Value, json};

use self::compare::Comparison;
use self::managed::Entry;
use self::set::{Set, add, difference, exclude, intersection, is_subset, strip, union};
use crate::schema::{TypeId, Types};
use crate::status::{Cause, Details, StatusError};

pub use self::configuration::apply_configuration;
pub use self::element::paths;
pub use self::managers::Managers;
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
    let reset = writer.subresource.is_empty() && managed::is_reset(new);
    let given = new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|metadata| metadata.remove("managedFields"));
    let live = old.and_then(|old| crate::object::at(old, "metadata.managedFields"));
    // A patched object brings what the live one has: that is used, and nothing copied.
    let (own, same) = (writer.subresource.is_empty(), given.as_ref() == live);
    let given = given.filter(|_| own || same).and_then(managed::of_list);
    let mut entries = match given {
        _ if reset => Vec::new(),
        Some(given) if !given.is_empty() => given,
        _ if same => Vec::new(),
        _ => old.and_then(managed::read).unwrap_or_default(),
    };
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
    account(compare::compare(types, ty, old, new), writer, &mut entries);
    managed::cap(&mut entries);
    managed::write(new, entries);
}

/// As [`on_update`] of an object whose managers were taken out, and that is given no others. What this endpoint does not write is
/// not looked at. Answers the managers of `new`.
pub fn on_update_apart(types: &Types, ty: TypeId, old: (&Value, &Managers), new: &Value, writer: &Writer<'_>) -> Managers {
    let (old, Managers(entries)) = old;
    let mut entries = entries.clone();
    if entries.is_empty() && !crate::object::uid(old).is_empty() {
        return Managers::default();
    }
    account(compare::compare_but(types, ty, old, new, writer.reset_fields), writer, &mut entries);
    managed::cap(&mut entries);
    entries.sort_by(managed::order);
    Managers(entries)
}

/// Takes what changed from others and gives it to the writer. An object that is not of its type changes nothing, as upstream.
fn account(changes: Result<Comparison, ApplyError>, writer: &Writer<'_>, entries: &mut Vec<Entry>) {
    let Ok(mut changes) = changes else { return };
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        exclude(set, writer.reset_fields);
    }
    let mut taken = changes.added;
    add(&mut taken, &changes.modified);
    take(entries, &taken, &changes.removed);
    strip(&mut taken, &STRIPPED);
    if taken.is_empty() {
        return;
    }
    let entry = Entry {
        manager: writer.manager.to_owned(),
        applied: false,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: writer.time.to_owned(),
        set: taken.into(),
    };
    match entries.iter_mut().find(|e| e.same_manager(&entry)) {
        Some(previous) => {
            previous.set.add(&entry.set);
            *previous = Entry { set: previous.set.clone(), ..entry };
        }
        None => entries.push(entry),
    }
}

fn take(entries: &mut Vec<Entry>, taken: &Set, removed: &Set) {
    for entry in entries.iter_mut() {
        entry.set.subtract(taken);
        entry.set.subtract(removed);
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
    let mut entries = live.and_then(managed::read).unwrap_or_default();
    settle::settle(types, ty, &mut entries);
    let bare = live.map(without_managers);
    let (mut object, unchanged, entries) = apply_to(types, ty, bare.as_ref(), entries, config, writer, force)?;
    managed::write(&mut object, entries);
    Ok(Applied { object, unchanged })
}

/// As [`apply`] onto an object whose managers were taken out, and so are those of the outcome.
pub fn apply_apart(
    types: &Types,
    ty: TypeId,
    (live, managers): (&Value, &Managers),
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Applied, Managers), ApplyError> {
    let (object, unchanged, mut entries) = apply_to(types, ty, Some(live), managers.0.clone(), config, writer, force)?;
    entries.sort_by(managed::order);
    Ok((Applied { object, unchanged }, Managers(entries)))
}

fn apply_to(
    types: &Types,
    ty: TypeId,
    live: Option<&Value>,
    mut entries: Vec<Entry>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, bool, Vec<Entry>), ApplyError> {
    if crate::object::at(config, "metadata.managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    typed::validate(types, ty, config)?;
    let zero = if entries.is_empty() || live.is_none() { crate::decode::zero(types, ty) } else { Value::Null };
    let bare = live.unwrap_or(&zero);
    if entries.is_empty() && live.is_some() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        account(compare::compare(types, ty, &zero, bare), &before, &mut entries);
    }
    // kubectl moves from client-side to server-side apply: what it applied before is its own.
    let again = (writer.manager == "kubectl" && !force).then(|| entries.clone());
    let outcome = match (apply_once(types, ty, bare, config, writer, force, entries), again) {
        (Err(ApplyError::Conflicts(conflicts)), Some(entries)) => {
            let own = last_applied(bare).and_then(|last| compare::field_set(types, ty, &last).ok()).unwrap_or_default();
            let own = paths(&own);
            let left: Vec<Conflict> = conflicts.into_iter().filter(|c| !own.contains(&c.path)).collect();
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_once(types, ty, bare, config, writer, true, entries)
        }
        (other, _) => other,
    };
    let (mut object, unchanged, entries) = outcome?;
    if writer.manager == "kubectl" && last_applied(bare).is_some() {
        // Keeps the annotation of client-side apply in step.
        crate::object::map_mut(&mut object, "metadata.annotations").insert(LAST_APPLIED.to_owned(), json!(format!("{config}\n")));
    }
    Ok((object, unchanged, entries))
}

/// A copy that leaves out what is often the larger half.
fn without_managers(object: &Value) -> Value {
    let Value::Object(map) = object else { return object.clone() };
    let metadata = |value: &Value| match value {
        Value::Object(map) => {
            Value::Object(map.iter().filter(|(k, _)| *k != "managedFields").map(|(k, v)| (k.clone(), v.clone())).collect())
        }
        other => other.clone(),
    };
    let copied = |(k, v): (&String, &Value)| (k.clone(), if k == "metadata" { metadata(v) } else { v.clone() });
    Value::Object(map.iter().map(copied).collect())
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
        set: owned.into(),
    };
    let last = entries.iter().position(|e| e.same_manager(&mine)).map(|at| entries.remove(at));
    let object = match &last {
        // Most appliers set what they set the last time, with other values.
        Some(last) if !is_subset(&last.set, &mine.set) => prune(types, ty, merged, &last.set, &entries, &mine)?,
        _ => merged,
    };
    let mut changes = compare::compare(types, ty, live, &object)?;
    for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
        exclude(set, writer.reset_fields);
    }
    let mut taken = changes.added;
    add(&mut taken, &changes.modified);
    if !force {
        let conflicts = conflicts(&entries, &taken);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    take(&mut entries, &taken, &changes.removed);
    // As upstream: another order of items, and fields this endpoint does not write, are no change.
    let unchanged = taken.is_empty() && changes.removed.is_empty();
    let object = if unchanged { live.clone() } else { object };
    strip(mine.set.make_mut(), &STRIPPED);
    mine.time = if unchanged { String::new() } else { writer.time.to_owned() };
    if let Some(last) = last {
        if last.set == mine.set {
            mine.set = last.set;
        }
        if unchanged {
            mine.time = last.time;
        }
    }
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
    let managed = others.iter().fold((*mine.set).clone(), |all, e| union(&all, &e.set));
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
