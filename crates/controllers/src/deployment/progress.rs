//! A Deployment's status and conditions: upstream's `progress.go` and `calculateStatus`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use super::replica_sets::Revisions;
use crate::action::Outcome;
use crate::meta;
use crate::replica_set::positive;
use crate::view::Context;

pub fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition; one that already has this status and reason stays as it is.
pub fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let old = condition(status, kind).cloned();
    if old.as_ref().is_some_and(|old| old.status == value && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let kept = old.filter(|old| old.status == value).and_then(|old| old.last_transition_time);
    put(status, kind, value, reason, message, kept, now);
}

fn put(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    since: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    now: Timestamp,
) {
    remove(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(meta::time(now)),
        last_transition_time: Some(since.unwrap_or_else(|| meta::time(now))),
    });
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Upstream's `checkPausedConditions`.
pub fn note_pause(sets: &mut Revisions<'_>, context: &Context<'_>) {
    if !sets.has_deadline() {
        return;
    }
    let reason = condition(&sets.status, "Progressing").and_then(|condition| condition.reason.clone());
    let reason = reason.as_deref();
    if matches!(reason, Some("ProgressDeadlineExceeded")) {
        return;
    }
    let paused = sets.spec().paused == Some(true);
    if paused && reason != Some("DeploymentPaused") {
        set(&mut sets.status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), context.now);
    } else if !paused && reason == Some("DeploymentPaused") {
        set(&mut sets.status, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), context.now);
    }
}

/// Counts from the ReplicaSets' own statuses, and the conditions as they are.
pub fn status(sets: &Revisions<'_>) -> DeploymentStatus {
    let sum = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        sets.all().filter_map(|revision| revision.set.status.as_ref().map(count)).sum()
    };
    let total: i32 = sets.all().map(|revision| revision.replicas).sum();
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    let updated = sets.new.as_ref().and_then(|new| new.set.status.as_ref()).map_or(0, |status| status.replicas);
    DeploymentStatus {
        observed_generation: sets.deployment.metadata.generation,
        replicas: positive(sum(|status| status.replicas)),
        updated_replicas: positive(updated),
        ready_replicas: positive(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: positive(available),
        unavailable_replicas: positive(total - available),
        terminating_replicas: Some(sum(|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: sets.status.collision_count,
        conditions: sets.status.conditions.clone(),
    }
}

/// Brings the status up to date and says when the progress deadline must be looked at.
pub fn sync_status(sets: &mut Revisions<'_>, context: &Context<'_>, outcome: &mut Outcome) {
    let mut new = status(sets);
    let needed = sets.wanted() - sets.bounds().unavailable;
    if new.available_replicas.unwrap_or(0) >= needed {
        let text = "Deployment has minimum availability.".to_owned();
        set(&mut new, "Available", "True", "MinimumReplicasAvailable", text, context.now);
    } else {
        let text = "Deployment does not have minimum availability.".to_owned();
        set(&mut new, "Available", "False", "MinimumReplicasUnavailable", text, context.now);
    }
    if !sets.has_deadline() {
        remove(&mut new, "Progressing");
    } else if sets.spec().paused != Some(true) && !meta::is_deleting(sets.deployment) {
        note_progress(sets, &mut new, context);
        watch_deadline(sets, &new, context, outcome);
    }
    note_failure(sets, &mut new);
    sets.status = new;
}

fn note_progress(sets: &Revisions<'_>, new: &mut DeploymentStatus, context: &Context<'_>) {
    let current = condition(new, "Progressing").cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    if new.replicas == new.updated_replicas && reason == Some("NewReplicaSetAvailable") {
        // Unless it is the last set that it tells of: a crash came between the making of the new one and the status.
        let of_other = |message: &str| sets.new.as_ref().is_some_and(|set| !message.contains(&format!("\"{}\"", meta::name(&*set.set))));
        if !current.as_ref().and_then(|condition| condition.message.as_deref()).is_some_and(of_other) {
            return;
        }
        remove(new, "Progressing");
    }
    let who = match &sets.new {
        Some(revision) => format!("ReplicaSet \"{}\"", meta::name(&*revision.set)),
        None => format!("Deployment \"{}\"", meta::name(sets.deployment)),
    };
    if sets.is_complete(new) {
        let text = format!("{who} has successfully progressed.");
        set(new, "Progressing", "True", "NewReplicaSetAvailable", text, context.now);
    } else if has_progressed(sets.deployment.status.as_ref(), new) {
        let since = current.filter(|condition| condition.status == "True").and_then(|condition| condition.last_transition_time);
        put(new, "Progressing", "True", "ReplicaSetUpdated", format!("{who} is progressing."), since, context.now);
    } else if has_timed_out(sets, current.as_ref(), context) {
        let text = format!("{who} has timed out progressing.");
        set(new, "Progressing", "False", "ProgressDeadlineExceeded", text, context.now);
    }
}

fn has_progressed(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let empty = DeploymentStatus::default();
    let old = old.unwrap_or(&empty);
    let count = |value: Option<i32>| value.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn deadline(sets: &Revisions<'_>) -> SignedDuration {
    SignedDuration::from_secs(sets.spec().progress_deadline_seconds.unwrap_or(600).into())
}

fn has_timed_out(sets: &Revisions<'_>, current: Option<&DeploymentCondition>, context: &Context<'_>) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => current.last_update_time.as_ref().is_some_and(|last| meta::since(last, context.now) > deadline(sets)),
    }
}

fn watch_deadline(sets: &Revisions<'_>, new: &DeploymentStatus, context: &Context<'_>, outcome: &mut Outcome) {
    let Some(current) = condition(new, "Progressing") else { return };
    let over = matches!(current.reason.as_deref(), Some("ProgressDeadlineExceeded" | "NewReplicaSetAvailable"));
    if over || sets.is_complete(new) {
        return;
    }
    if let Some(last) = &current.last_update_time {
        let rest = deadline(sets) - meta::since(last, context.now);
        outcome.requeue_in(meta::unsigned(rest) + Duration::from_secs(1));
    }
}

/// The new set's failure to make pods, else that of an old one, shows on the Deployment.
fn note_failure(sets: &Revisions<'_>, new: &mut DeploymentStatus) {
    let of = |set: &k8s_openapi::api::apps::v1::ReplicaSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == "ReplicaFailure").cloned()
    };
    let failure = sets.new.iter().chain(&sets.old).find_map(|revision| of(&revision.set));
    let Some(failure) = failure else { return remove(new, "ReplicaFailure") };
    let current = condition(new, "ReplicaFailure");
    if current.is_some_and(|current| current.status == failure.status && current.reason == failure.reason) {
        return;
    }
    let at = failure.last_transition_time.clone().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let (reason, message) = (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
    put(new, "ReplicaFailure", &failure.status, &reason, message, failure.last_transition_time, at);
}
