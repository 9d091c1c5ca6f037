//! What the pods of a Job have come to, and which of them have been counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::indexes::{self, Indexes};
use super::per_index::PerIndex;
use super::{TRACKING, failure};
use crate::{meta, pods};

#[derive(Default)]
pub struct Count {
    pub active: Vec<Arc<Pod>>,
    /// Being deleted, not ended yet.
    pub terminating: usize,
    /// In the counters for good.
    pub counted_succeeded: usize,
    pub counted_failed: usize,
    /// With those that are only written down.
    pub succeeded: usize,
    pub failed: usize,
    pub completed: BTreeSet<usize>,
    /// Written down, to be added to the counters once their finalizer is off.
    uncounted_succeeded: BTreeSet<String>,
    uncounted_failed: BTreeSet<String>,
    /// Finished pods that still hold the finalizer.
    pub to_untrack: Vec<Arc<Pod>>,
    /// Failed pods that were not written down before this pass.
    pub newly_failed: Vec<Arc<Pod>>,
    /// Failures since the last success, and when the newest was.
    pub recent_failures: Option<(usize, Timestamp)>,
    /// Where single indexes have limits.
    pub per_index: Option<PerIndex>,
}

impl Count {
    pub fn of(job: &Job, all: &[Arc<Pod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let number = |count: Option<i32>| usize::try_from(count.unwrap_or(0)).unwrap_or(0);
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        let indexed = job.spec.as_ref().is_some_and(|spec| spec.completion_mode.as_deref() == Some("Indexed"));
        let mut count = Self {
            counted_succeeded: number(status.succeeded),
            counted_failed: number(status.failed),
            uncounted_succeeded: uncounted.succeeded.into_iter().flatten().collect(),
            uncounted_failed: uncounted.failed.into_iter().flatten().collect(),
            completed: Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default()).to_set(),
            ..Self::default()
        };
        count.settle(all);
        for pod in all {
            count.add(job, pod, indexed);
        }
        if indexed {
            count.counted_succeeded = count.completed.len();
        }
        count.succeeded = count.counted_succeeded + count.uncounted_succeeded.len();
        count.failed = count.counted_failed + count.uncounted_failed.len();
        count.recent_failures = recent_failures(all);
        count.per_index = job.spec.as_ref().and_then(|spec| PerIndex::of(job, spec, all, &count.completed));
        count
    }

    /// Pods that were written down and hold no finalizer any more go into the counters.
    fn settle(&mut self, all: &[Arc<Pod>]) {
        let held: BTreeSet<&str> = all.iter().filter(|pod| is_tracked(pod)).map(|pod| meta::uid(&**pod)).collect();
        for (uncounted, counted) in
            [(&mut self.uncounted_succeeded, &mut self.counted_succeeded), (&mut self.uncounted_failed, &mut self.counted_failed)]
        {
            let before = uncounted.len();
            uncounted.retain(|uid| held.contains(uid.as_str()));
            *counted += before - uncounted.len();
        }
    }

    fn add(&mut self, job: &Job, pod: &Arc<Pod>, indexed: bool) {
        let uid = meta::uid(&**pod);
        match pods::phase(pod) {
            "Succeeded" if is_tracked(pod) => {
                self.to_untrack.push(pod.clone());
                if indexed {
                    self.completed.extend(indexes::index_of(pod));
                } else {
                    self.uncounted_succeeded.insert(uid.to_owned());
                }
            }
            "Failed" if is_tracked(pod) => {
                self.to_untrack.push(pod.clone());
                let fresh = !self.uncounted_failed.contains(uid);
                if fresh {
                    self.newly_failed.push(pod.clone());
                }
                if fresh && !failure::is_ignored(job, pod) {
                    self.uncounted_failed.insert(uid.to_owned());
                }
            }
            "Succeeded" | "Failed" => {}
            _ if meta::is_deleting(&**pod) => self.terminating += 1,
            _ => self.active.push(pod.clone()),
        }
    }

    pub fn is_counted(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && self.to_untrack.is_empty()
    }

    pub fn uncounted(&self) -> UncountedTerminatedPods {
        let list = |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect());
        UncountedTerminatedPods { succeeded: list(&self.uncounted_succeeded), failed: list(&self.uncounted_failed) }
    }

    /// Indexes that are neither done nor being worked on, lowest first.
    pub fn free_indexes(&self, completions: usize) -> Vec<usize> {
        let busy: BTreeSet<usize> = self.active.iter().filter_map(|pod| indexes::index_of(pod)).collect();
        let failed = |index: &usize| self.per_index.as_ref().is_some_and(|per_index| per_index.failed.contains(index));
        (0..completions).filter(|index| !busy.contains(index) && !self.completed.contains(index) && !failed(index)).collect()
    }
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

pub fn finished_at(pod: &Pod) -> Timestamp {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()).map(|time| time.0).max();
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let ready = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    ended.or(ready).or(deleted).unwrap_or_else(|| meta::created(pod))
}

fn recent_failures(all: &[Arc<Pod>]) -> Option<(usize, Timestamp)> {
    let ended = |phase: &'static str| all.iter().filter(move |pod| pods::phase(pod) == phase).map(|pod| finished_at(pod));
    let success = ended("Succeeded").max().unwrap_or(Timestamp::MIN);
    let since: Vec<Timestamp> = ended("Failed").filter(|at| *at > success).collect();
    since.iter().max().map(|last| (since.len(), *last))
}
