//! Scaling a Deployment that is paused or was just scaled: upstream's `scale` in `sync.go`. In the middle of a roll-out
//! the change is spread over the ReplicaSets in proportion.

use super::is_recreate;
use super::replica_sets::{Revision, Revisions};
use crate::meta;

pub fn scale(sets: &mut Revisions<'_>) {
    let wanted = sets.wanted();
    if let Some(at) = active_or_latest(sets) {
        sets.scale(at, wanted);
        return;
    }
    if is_saturated(sets) {
        for at in 0..sets.old.len() {
            if sets.old[at].replicas > 0 {
                sets.scale(Some(at), 0);
            }
        }
        return;
    }
    if !is_recreate(sets.deployment) {
        spread(sets);
    }
}

/// The only set with pods, or the newest when none has any; `None` when several have.
fn active_or_latest(sets: &Revisions<'_>) -> Option<Option<usize>> {
    let mut active: Vec<Option<usize>> = (0..sets.old.len()).filter(|at| sets.old[*at].replicas > 0).map(Some).collect();
    if sets.new.as_ref().is_some_and(|new| new.replicas > 0) {
        active.push(None);
    }
    match active.as_slice() {
        [] if sets.new.is_some() => Some(None),
        [] => sets.old.len().checked_sub(1).map(Some),
        [one] => Some(*one),
        _ => None,
    }
}

/// The new set has and serves all that is wanted.
fn is_saturated(sets: &Revisions<'_>) -> bool {
    let wanted = sets.wanted();
    sets.new.as_ref().is_some_and(|new| {
        let desired = meta::annotation(&*new.set, "deployment.kubernetes.io/desired-replicas").and_then(|text| text.parse().ok());
        new.replicas == wanted && desired == Some(wanted) && new.available() == wanted
    })
}

fn spread(sets: &mut Revisions<'_>) {
    let (wanted, surge) = (sets.wanted(), sets.bounds().surge);
    let allowed = if wanted > 0 { wanted + surge } else { 0 };
    let to_add = allowed - sets.total_replicas();
    let mut order: Vec<Option<usize>> = (0..sets.old.len()).map(Some).chain(sets.new.as_ref().map(|_| None)).collect();
    order.retain(|at| get(sets, *at).is_some_and(|revision| revision.replicas > 0));
    // Larger first; among equals the newer gets more and the older loses more.
    if to_add > 0 {
        order.reverse();
    }
    order.sort_by_key(|at| std::cmp::Reverse(get(sets, *at).map_or(0, |revision| revision.replicas)));
    let mut added = 0;
    let mut sizes = Vec::new();
    for at in &order {
        let Some(revision) = get(sets, *at) else { continue };
        let share = if to_add == 0 { 0 } else { proportion(sets, revision, to_add, added) };
        added += share;
        sizes.push(revision.replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (at, size) in order.into_iter().zip(sizes) {
        sets.scale(at, size);
    }
}

fn get<'s>(sets: &'s Revisions<'_>, at: Option<usize>) -> Option<&'s Revision> {
    at.map_or(sets.new.as_ref(), |at| sets.old.get(at))
}

/// Upstream's `GetReplicaSetProportion`.
fn proportion(sets: &Revisions<'_>, revision: &Revision, to_add: i32, added: i32) -> i32 {
    if revision.replicas == 0 || to_add == added {
        return 0;
    }
    let share = fraction(sets, revision);
    let rest = to_add - added;
    if to_add > 0 { share.min(rest) } else { share.max(rest) }
}

fn fraction(sets: &Revisions<'_>, revision: &Revision) -> i32 {
    if sets.wanted() == 0 {
        return -revision.replicas;
    }
    let limit = f64::from(sets.wanted() + sets.bounds().surge);
    let before = revision.max_replicas().unwrap_or_else(|| sets.status.replicas.unwrap_or(0));
    if before == 0 {
        return 0;
    }
    let size = (f64::from(revision.replicas) * limit / f64::from(before)).round();
    #[expect(clippy::cast_possible_truncation, reason = "float to int saturates, and sizes are small")]
    let size = size as i32;
    size - revision.replicas
}
