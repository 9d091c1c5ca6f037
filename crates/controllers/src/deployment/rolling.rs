//! The two strategies: rolling update, within the bounds of surge and unavailability, and recreate.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::is_recreate;
use super::replica_sets::Revisions;
use crate::view::{Context, View};
use crate::{meta, pods};

/// How large the new set may be now: upstream's `NewRSNewReplicas`.
pub fn new_set_replicas(sets: &Revisions<'_>) -> i32 {
    let has = sets.new.as_ref().map_or(0, |new| new.replicas);
    if is_recreate(sets.deployment) {
        return sets.wanted();
    }
    let limit = sets.wanted() + sets.bounds().surge;
    let total = sets.total_replicas();
    if total >= limit {
        return has;
    }
    has + (limit - total).min(sets.wanted() - has)
}

/// One step of a rolling update; whether it changed anything.
pub fn roll(sets: &mut Revisions<'_>) -> bool {
    let fresh = sets.new.as_ref().is_some_and(|new| new.set.metadata.uid.is_none());
    fresh || grow_new(sets) || shrink_old(sets)
}

fn grow_new(sets: &mut Revisions<'_>) -> bool {
    let has = sets.new.as_ref().map_or(0, |new| new.replicas);
    let wanted = sets.wanted();
    if has == wanted {
        return false;
    }
    let size = if has > wanted { wanted } else { new_set_replicas(sets) };
    sets.scale(None, size)
}

fn shrink_old(sets: &mut Revisions<'_>) -> bool {
    if sets.old.iter().all(|revision| revision.replicas == 0) {
        return false;
    }
    let min_available = sets.wanted() - sets.bounds().unavailable;
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas - new.available());
    let mut allowed = sets.total_replicas() - min_available - new_unavailable;
    if allowed <= 0 {
        return false;
    }
    // Pods that do not serve go first; losing them costs nothing.
    let mut changed = false;
    for at in 0..sets.old.len() {
        let revision = &sets.old[at];
        let useless = (revision.replicas - revision.available()).min(allowed);
        if revision.replicas > 0 && useless > 0 {
            allowed -= useless;
            changed |= sets.scale(Some(at), sets.old[at].replicas - useless);
        }
    }
    let available: i32 = sets.all().map(|revision| revision.available().min(revision.replicas)).sum();
    let mut allowed = available - min_available;
    for at in 0..sets.old.len() {
        let count = sets.old[at].replicas.min(allowed);
        if count > 0 {
            allowed -= count;
            changed |= sets.scale(Some(at), sets.old[at].replicas - count);
        }
    }
    changed
}

/// One step of a recreate: all old pods away, then all new ones; whether it changed anything.
pub fn recreate(view: &View<'_>, sets: &mut Revisions<'_>, context: &Context<'_>) -> bool {
    let mut changed = false;
    for at in 0..sets.old.len() {
        if sets.old[at].replicas > 0 {
            changed |= sets.scale(Some(at), 0);
        }
    }
    if changed || sets.old.iter().any(|revision| has_running_pods(view, &revision.set)) {
        return true;
    }
    if sets.new.is_none() {
        sets.sync_revision(view, context, true);
        return true;
    }
    sets.scale(None, sets.wanted())
}

fn has_running_pods(view: &View<'_>, set: &Arc<ReplicaSet>) -> bool {
    view.pods.controlled_by(meta::uid(&**set)).iter().any(|pod| !pods::is_finished(pod))
}
