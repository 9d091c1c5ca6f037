//! Back-off limits of single indexes, and Jobs that succeed with some of them. Upstream's `backoff_utils`, `indexed_job_utils`
//! and `success_policy`.
//!
//! How often an index has failed is written on its pods. So the last failed pod of an index keeps the finalizer until a
//! successor carries the number on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;

use super::count::finished_at;
use super::failure;
use super::indexes::{self, Indexes};
use crate::{meta, pods};

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What an index has been through.
#[derive(Clone, Copy, Default)]
struct Past {
    failures: usize,
    ignored: usize,
    last: Option<Timestamp>,
}

#[derive(Default)]
pub struct PerIndex {
    /// Given up for good.
    pub failed: BTreeSet<usize>,
    past: BTreeMap<usize, Past>,
    /// UIDs of the pods that must not be forgotten yet.
    held: BTreeSet<String>,
}

impl PerIndex {
    /// `None` when the Job limits no single index.
    pub fn of(job: &Job, spec: &JobSpec, all: &[Arc<Pod>], completed: &BTreeSet<usize>) -> Option<Self> {
        let limit = usize::try_from(spec.backoff_limit_per_index?).unwrap_or(0);
        let status = job.status.as_ref().and_then(|status| status.failed_indexes.as_deref()).unwrap_or_default();
        let mut found = Self { failed: Indexes::parse(status).to_set(), ..Self::default() };
        let mut newest: BTreeMap<usize, (usize, String)> = BTreeMap::new();
        for pod in all {
            let Some(index) = indexes::index_of(pod) else { continue };
            let number = |key| meta::annotation(&**pod, key).and_then(|text| text.parse().ok()).unwrap_or(0);
            let mut past = Past { failures: number(FAILURES), ignored: number(IGNORED), last: None };
            let generation = past.failures + past.ignored;
            if newest.get(&index).is_none_or(|(newest, _)| generation >= *newest) {
                newest.insert(index, (generation, meta::uid(&**pod).to_owned()));
            }
            if pods::phase(pod) != "Failed" {
                continue;
            }
            past.last = Some(finished_at(pod));
            if failure::is_ignored(job, pod) {
                past.ignored += 1;
            } else {
                past.failures += 1;
                if past.failures > limit || failure::fails_index(job, pod) {
                    found.failed.insert(index);
                }
            }
            let before = found.past.entry(index).or_default();
            if past.failures + past.ignored > before.failures + before.ignored {
                *before = past;
            }
        }
        found.failed.retain(|index| !completed.contains(index));
        let open = newest.into_iter().filter(|(index, _)| !found.failed.contains(index) && !completed.contains(index));
        found.held = open.map(|(_, (_, uid))| uid).collect();
        Some(found)
    }

    pub fn must_keep(&self, pod: &Pod) -> bool {
        self.held.contains(meta::uid(pod))
    }

    /// How often an index has failed, and when it last did.
    pub fn past(&self, index: usize) -> Option<(usize, Timestamp)> {
        let past = self.past.get(&index)?;
        Some((past.failures, past.last?))
    }

    /// Carries the numbers on to an index's next pod.
    pub fn mark(&self, pod: &mut Pod, index: usize) {
        let past = self.past.get(&index).copied().unwrap_or_default();
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), past.failures.to_string());
        if past.ignored > 0 {
            annotations.insert(IGNORED.to_owned(), past.ignored.to_string());
        }
    }

    /// Why indexes that failed make the whole Job fail.
    pub fn failure(&self, spec: &JobSpec, completed: usize) -> Option<(&'static str, &'static str)> {
        let over = spec.max_failed_indexes.is_some_and(|max| self.failed.len() > usize::try_from(max).unwrap_or(0));
        if over {
            return Some(("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"));
        }
        let all = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        (!self.failed.is_empty() && self.failed.len() + completed >= all).then_some(("FailedIndexes", "Job has failed indexes"))
    }
}

/// Which rule of the success policy is met.
pub fn success(spec: &JobSpec, completed: &BTreeSet<usize>) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| {
        let of_rule = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text).to_set());
        let done = of_rule.as_ref().map_or(completed.len(), |indexes| indexes.intersection(completed).count());
        match (rule.succeeded_count, of_rule) {
            (Some(count), _) => done >= usize::try_from(count).unwrap_or(0),
            (None, Some(indexes)) => done == indexes.len(),
            (None, None) => false,
        }
    });
    met.map(|at| format!("Matched rules at index {at}"))
}
