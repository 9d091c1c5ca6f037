//! What revisions promise: they grow with time, each is one write, and watchers see all of them, once, in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Answer, Call, Operation};

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: u64,
    pub key: Arc<str>,
    /// The number of the value; `None`: deleted.
    pub value: Option<u64>,
}

/// All that one watcher saw, over all its resumptions.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// It was started after this revision.
    pub after: u64,
    /// It has seen everything up to here.
    pub until: u64,
    /// Only keys that begin so.
    pub prefix: String,
    pub events: Vec<Seen>,
}

/// Whether revisions go back for anyone, or are given out twice.
pub(super) fn revisions(operations: &[Operation]) -> Result<(), String> {
    let mut taken: HashMap<u64, &Operation> = HashMap::new();
    let mut writes: Vec<(&Operation, u64)> = Vec::new();
    for operation in operations {
        let Some(Answer::Written(Some(revision))) = operation.answer else { continue };
        if let Some(other) = taken.insert(revision, operation) {
            return Err(format!("revision {revision} was given to {other:?} and to {operation:?}"));
        }
        writes.push((operation, revision));
    }
    // Each write's revision is above all that were answered before it began.
    let mut answers: Vec<(u64, u64)> = writes.iter().map(|(o, revision)| (o.answered, *revision)).collect();
    answers.sort_unstable();
    let mut newest = 0;
    for answer in &mut answers {
        newest = newest.max(answer.1);
        answer.1 = newest;
    }
    for (operation, revision) in writes {
        let before = answers.partition_point(|(answered, _)| *answered < operation.called);
        if before > 0 && answers[before - 1].1 >= revision {
            return Err(format!("revisions go back: {} was answered before {operation:?} was called", answers[before - 1].1));
        }
    }
    Ok(())
}

pub(super) fn check(operations: &[Operation], watches: &[Watched]) -> Result<usize, String> {
    let mut acknowledged: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut possible: HashSet<(Arc<str>, Option<u64>)> = HashSet::new();
    for operation in operations {
        let value = match operation.call {
            Call::Put(number, _) => Some(number),
            Call::Delete(_) => None,
            Call::Get => continue,
        };
        match operation.answer {
            Some(Answer::Written(Some(revision))) => {
                acknowledged.insert(revision, Seen { revision, key: operation.key.clone(), value });
            }
            Some(Answer::Written(None)) | None => drop(possible.insert((operation.key.clone(), value))),
            Some(_) => {}
        }
    }
    // What happened though nobody was told so, or when: the same for every watcher.
    let mut unannounced: HashMap<u64, Seen> = HashMap::new();
    let mut total = 0;
    for (n, watch) in watches.iter().enumerate() {
        let mut last = watch.after;
        for seen in &watch.events {
            if seen.revision <= last {
                return Err(format!("watcher {n} was at {last} and then saw {seen:?}: it goes back or repeats"));
            }
            last = seen.revision;
            let there = acknowledged.get(&seen.revision).or_else(|| unannounced.get(&seen.revision));
            match there {
                Some(write) if write == seen => {}
                Some(write) => return Err(format!("watcher {n} saw {seen:?}, but that revision is {write:?}")),
                None if possible.contains(&(seen.key.clone(), seen.value)) => drop(unannounced.insert(seen.revision, seen.clone())),
                None => return Err(format!("watcher {n} saw {seen:?}, which nobody wrote")),
            }
        }
        total += watch.events.len();
    }
    for (n, watch) in watches.iter().enumerate() {
        let seen: HashSet<u64> = watch.events.iter().map(|e| e.revision).collect();
        let wanted = acknowledged.values().chain(unannounced.values());
        let mut wanted = wanted.filter(|w| w.revision > watch.after && w.revision <= watch.until && w.key.starts_with(&watch.prefix));
        if let Some(missed) = wanted.find(|w| !seen.contains(&w.revision)) {
            return Err(format!("watcher {n} (after {}, until {}) missed {missed:?}", watch.after, watch.until));
        }
        deletions(operations, &acknowledged, watch).map_err(|e| format!("watcher {n}: {e}"))?;
    }
    Ok(total)
}

/// Deletions are often answered without a revision: they are counted, and none follows another.
fn deletions(operations: &[Operation], acknowledged: &BTreeMap<u64, Seen>, watch: &Watched) -> Result<(), String> {
    let mut seen: HashMap<&str, (u64, bool)> = HashMap::new();
    for event in &watch.events {
        let (count, gone) = seen.entry(&event.key).or_default();
        if event.value.is_none() && std::mem::replace(gone, true) {
            return Err(format!("saw {event:?} of a key that was gone"));
        }
        *count += u64::from(event.value.is_none());
        *gone = event.value.is_none();
    }
    let whole = acknowledged.keys().next().is_none_or(|first| watch.after < *first)
        && acknowledged.keys().next_back().is_none_or(|last| watch.until >= *last);
    if !whole {
        return Ok(());
    }
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for operation in operations.iter().filter(|o| o.key.starts_with(&watch.prefix)) {
        if matches!((operation.call, operation.answer), (Call::Delete(_), Some(Answer::Written(_)))) {
            *wanted.entry(&operation.key).or_default() += 1;
        }
    }
    for (key, wanted) in wanted {
        let count = seen.get(key).map_or(0, |(count, _)| *count);
        if count < wanted {
            return Err(format!("{key} was deleted {wanted} times and seen so {count} times"));
        }
    }
    Ok(())
}
