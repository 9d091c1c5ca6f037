//! What the garbage collector takes away has no owner left; an owner that waits for its dependents goes after them; one that
//! leaves orphans is in nobody's references when it goes.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Checked, Step};
use crate::state::{State, is_deleting, owners, text, uid_of};

/// What was made so long ago is known to the collector.
const KNOWN_SECONDS: i64 = 15;

pub fn check(step: &Step<'_>, state: &State) -> Checked {
    let Some(old) = step.before() else { return Ok(()) };
    let goes = step.after().is_none_or(|new| is_deleting(new) && !is_deleting(old));
    if goes && !is_deleting(old) && step.who.ends_with(":generic-garbage-collector") {
        ownerless(step, old, state)?;
    }
    // Whoever deletes it anew may ask for another way.
    if step.after().is_none() && step.who.ends_with(":generic-garbage-collector") {
        let refers = |object: &Value| owners(object).iter().any(|owner| owner["uid"] == uid_of(old)) && is_older(object, old);
        if has_finalizer(old, "orphan")
            && let Some((key, _)) = state.all().find(|(_, object)| refers(&object.tree))
        {
            return Err(format!("{} went and left {key} with a reference to it", step.key));
        }
        let blocks = |object: &Value| {
            owners(object).iter().any(|owner| owner["uid"] == uid_of(old) && owner["blockOwnerDeletion"] == true) && is_older(object, old)
        };
        if has_finalizer(old, "foregroundDeletion")
            && let Some((key, _)) = state.all().find(|(_, object)| blocks(&object.tree))
        {
            return Err(format!("{} went before {key}, which it should wait for", step.key));
        }
    }
    Ok(())
}

/// Made well before its owner was to go: a controller may not know yet, and then what it makes is collected later.
fn is_older(object: &Value, owner: &Value) -> bool {
    let time = |object: &Value, path: &str| text(object, path).parse::<Timestamp>().map(Timestamp::as_second).unwrap_or_default();
    time(object, "/metadata/creationTimestamp") + KNOWN_SECONDS < time(owner, "/metadata/deletionTimestamp")
}

fn ownerless(step: &Step<'_>, old: &Value, state: &State) -> Checked {
    for owner in owners(old) {
        let uid = owner["uid"].as_str().unwrap_or_default();
        let lives = state.all().find(|(_, object)| uid_of(&object.tree) == uid);
        if let Some((key, object)) = lives
            && !has_finalizer(&object.tree, "foregroundDeletion")
        {
            return Err(format!("{} was collected, though its owner {key} lives", step.key));
        }
    }
    Ok(())
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().any(|one| one == name)
}
