//! Job: pods that run to completion. Upstream's `pkg/controller/job`.
//!
//! Every pod carries a finalizer until it has been counted: a pass first writes down the UIDs of finished pods, then takes
//! their finalizers off, and only pods without one are added to the counters. A crash in between counts nothing twice.

mod count;
mod failure;
mod indexes;
mod patience;
mod per_index;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::action::{Action, Event, Outcome, slow_start};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta, pods};
use count::Count;
use indexes::Indexes;
use patience::Patience;

pub const CONTROLLER: Controller = Controller {
    name: "job-controller",
    identity: "job-controller",
    component: "job-controller",
    watches: &[Watch::Jobs(|_, job| vec![meta::key(job)]), Watch::Pods(|_, pod| keys_of_pod(pod))],
    reconcile,
};

pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// A controller named here, and not this one, looks after the Job.
const THIS: &str = "kubernetes.io/job-controller";
/// Pods made in one go.
const BURST: usize = 500;
/// Stands before a pod's name in the key of one that no Job owns; no Job's name has a slash.
const ORPHAN: &str = "pod/";

fn keys_of_pod(pod: &Pod) -> Vec<Key> {
    if let Some(job) = meta::controller_key::<Job, _>(pod) {
        return vec![job];
    }
    let is_orphan = meta::controller(pod).is_none() && untrack_patch(pod).is_some();
    if is_orphan { vec![Key::new(meta::namespace(pod), &format!("{ORPHAN}{}", meta::name(pod)))] } else { Vec::new() }
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    if let Some(name) = key.name.strip_prefix(ORPHAN) {
        return release_orphan(view, &key.namespace, name).into();
    }
    let Some(job) = view.jobs.get(&key.namespace, &key.name) else { return release_orphans(view, key, "").into() };
    let Some(spec) = job.spec.as_ref() else { return Outcome::nothing() };
    if spec.managed_by.as_deref().is_some_and(|manager| manager != THIS) {
        return Outcome::nothing();
    }
    let (all, mut actions) = match &spec.selector {
        Some(selector) => {
            let claimed = pods::claim(view.pods, &*job, selector);
            (claimed.owned, claimed.actions)
        }
        None => (view.pods.controlled_by(meta::uid(&*job)), Vec::new()),
    };
    // A young Job may have had a predecessor of the same name.
    if context.now.duration_since(meta::created(&*job)) < SignedDuration::from_hours(1) {
        actions.extend(release_orphans(view, key, meta::uid(&*job)));
    }
    if meta::is_deleting(&*job) || condition(job.status.as_ref(), "Complete") || condition(job.status.as_ref(), "Failed") {
        // Nothing is counted any more, so nothing may be held back.
        actions.extend(together(all.iter().filter_map(untrack).collect()));
        return actions.into();
    }
    let mut pass = Pass {
        job: &job,
        spec,
        context,
        count: Count::of(&job, &all),
        patience: Patience::of(context),
        status: job.status.clone().unwrap_or_default(),
        outcome: Outcome::from(actions),
    };
    pass.run();
    pass.outcome.memory = pass.patience.memory();
    pass.outcome
}

/// Pods of a Job that is gone, or was before the one with this UID, have nobody to count them: nothing may hold them back. Upstream's `syncOrphanPod`.
fn release_orphans(view: &View<'_>, key: &Key, uid: &str) -> Vec<Action> {
    let all = view.pods.list_namespace(&key.namespace);
    let of_job =
        all.iter().filter(|pod| meta::controller_key::<Job, _>(&***pod).as_ref() == Some(key) && !meta::is_controlled_by(&***pod, uid));
    together(of_job.filter_map(untrack).collect()).into_iter().collect()
}

/// The garbage collector has taken such a pod from its Job before the finalizer was off: nobody will count it.
fn release_orphan(view: &View<'_>, namespace: &str, name: &str) -> Vec<Action> {
    let pod = view.pods.get(namespace, name).filter(|pod| meta::controller(&**pod).is_none());
    pod.and_then(|pod| untrack(&pod)).into_iter().collect()
}

/// Whether a condition holds.
fn condition(status: Option<&JobStatus>, kind: &str) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True"))
}

fn together(actions: Vec<Action>) -> Option<Action> {
    (!actions.is_empty()).then_some(Action::Together(actions))
}

/// Takes the finalizer off.
fn untrack(pod: &Arc<Pod>) -> Option<Action> {
    untrack_patch(pod).map(|patch| Action::patch(&**pod, patch))
}

fn untrack_patch(pod: &Pod) -> Option<serde_json::Value> {
    let finalizers = pod.metadata.finalizers.as_ref()?;
    let kept: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != TRACKING).collect();
    (kept.len() < finalizers.len()).then(|| json!({"metadata": {"finalizers": kept}}))
}

struct Pass<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    context: &'a Context<'a>,
    count: Count,
    patience: Patience,
    status: JobStatus,
    outcome: Outcome,
}

impl Pass<'_> {
    fn run(&mut self) {
        let suspended = self.spec.suspend == Some(true);
        if !suspended && self.status.start_time.is_none() {
            self.status.start_time = Some(meta::time(self.context.now));
        }
        let mut events = self.sync_suspension(suspended);
        let failed = self.failure();
        let mut changes = Vec::new();
        if let Some((reason, message)) = &failed {
            self.set_condition("FailureTarget", "True", reason, message);
            changes.extend(together(self.count.active.iter().map(|pod| self.delete(pod)).collect()));
        } else if let Some((reason, message)) = self.reached() {
            self.set_condition("SuccessCriteriaMet", "True", &reason, &message);
            changes.extend(together(self.count.active.iter().map(|pod| self.delete(pod)).collect()));
        } else if suspended {
            changes.extend(self.take_back(&self.count.active));
        } else {
            changes.extend(self.manage());
        }
        let goes_on = failed.is_none() && !condition(Some(&self.status), "SuccessCriteriaMet");
        if let (true, Some(per_index)) = (goes_on, &self.count.per_index) {
            self.count.to_untrack.retain(|pod| !per_index.must_keep(pod) || pods::phase(pod) != "Failed");
        }
        self.fill_status();
        events.extend(self.finish(&failed));
        // The UIDs are written down before any finalizer goes.
        self.outcome.actions.extend(Action::update_status(self.job, &self.job.status, &self.status));
        self.outcome.actions.extend(events.into_iter().map(Action::Record));
        self.outcome.actions.extend(together(self.count.to_untrack.iter().filter_map(untrack).collect()));
        self.outcome.actions.extend(changes);
    }

    fn parallelism(&self) -> usize {
        usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0)
    }

    fn completions(&self) -> Option<usize> {
        self.spec.completions.map(|completions| usize::try_from(completions).unwrap_or(0))
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Why the Job has succeeded, if it has.
    fn reached(&self) -> Option<(String, String)> {
        if let Some(decided) = self.decided("SuccessCriteriaMet") {
            return Some(decided);
        }
        if let Some(message) = per_index::success(self.spec, &self.count.completed) {
            return Some(("SuccessPolicy".to_owned(), message));
        }
        let reached = match self.completions() {
            Some(completions) => self.count.succeeded >= completions,
            // A work queue is done when one pod says so and the others have ended too.
            None => self.count.succeeded > 0 && self.count.active.is_empty(),
        };
        reached.then(|| ("CompletionsReached".to_owned(), "Reached expected number of succeeded pods".to_owned()))
    }

    /// Reason and message of a condition that holds already.
    fn decided(&self, kind: &str) -> Option<(String, String)> {
        let mut conditions = self.status.conditions.iter().flatten();
        let decided = conditions.find(|one| one.type_ == kind && one.status == "True")?;
        Some((decided.reason.clone().unwrap_or_default(), decided.message.clone().unwrap_or_default()))
    }

    /// Why the Job must fail, if it must.
    fn failure(&mut self) -> Option<(String, String)> {
        if let Some(decided) = self.decided("FailureTarget") {
            return Some(decided);
        }
        // What has succeeded does not fail any more.
        if self.decided("SuccessCriteriaMet").is_some() {
            return None;
        }
        if let Some(message) = failure::matched_policy(self.spec, &self.count.newly_failed) {
            return Some(("PodFailurePolicy".to_owned(), message));
        }
        if failure::exceeds_backoff_limit(self.spec, &self.count) {
            return Some(("BackoffLimitExceeded".to_owned(), "Job has reached the specified backoff limit".to_owned()));
        }
        let of_indexes = self.count.per_index.as_ref().and_then(|per_index| per_index.failure(self.spec, self.count.completed.len()));
        if let Some((reason, message)) = of_indexes {
            return Some((reason.to_owned(), message.to_owned()));
        }
        let (seconds, start) = (self.spec.active_deadline_seconds?, self.status.start_time.clone()?);
        if self.spec.suspend == Some(true) {
            return None;
        }
        let rest = SignedDuration::from_secs(seconds) - meta::since(&start, self.context.now);
        if rest <= SignedDuration::ZERO {
            return Some(("DeadlineExceeded".to_owned(), "Job was active longer than specified deadline".to_owned()));
        }
        self.outcome.requeue_in(meta::unsigned(rest) + Duration::from_millis(10));
        None
    }

    fn sync_suspension(&mut self, suspended: bool) -> Vec<Event> {
        let was = condition(self.job.status.as_ref(), "Suspended");
        let told = self.status.conditions.iter().flatten().any(|one| one.type_ == "Suspended");
        let (status, reason, text) = match (suspended, was) {
            (true, false) => ("True", "JobSuspended", "Job suspended"),
            (false, true) if told => ("False", "JobResumed", "Job resumed"),
            _ => return Vec::new(),
        };
        self.set_condition("Suspended", status, reason, text);
        self.status.start_time = if suspended { None } else { Some(meta::time(self.context.now)) };
        let event = if suspended { "Suspended" } else { "Resumed" };
        vec![Event::normal(self.job, event, text.to_owned())]
    }

    /// Makes or deletes pods until there are as many active ones as wanted.
    fn manage(&mut self) -> Vec<Action> {
        let active = self.count.active.len();
        let wanted = match self.completions() {
            Some(completions) => {
                let failed = self.count.per_index.as_ref().map_or(0, |per_index| per_index.failed.len());
                completions.saturating_sub(self.count.succeeded + failed).min(self.parallelism())
            }
            None if self.count.succeeded > 0 => active.min(self.parallelism()),
            None => self.parallelism(),
        };
        if active > wanted {
            let mut ranked = self.count.active.clone();
            ranked.sort_by(|a, b| pods::deletion_order((a, 0), (b, 0), self.context.now));
            ranked.truncate(active - wanted);
            return self.take_back(&ranked);
        }
        // By default a terminating pod is replaced at once; else only when it has failed.
        let late = self.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let occupied = active + if late || self.spec.pod_failure_policy.is_some() { self.count.terminating } else { 0 };
        let missing = wanted.saturating_sub(occupied).min(BURST);
        if missing == 0 {
            return Vec::new();
        }
        // Where single indexes have limits, each waits for itself.
        if self.count.per_index.is_none()
            && let Some(wait) = self.backoff()
        {
            self.outcome.requeue_in(wait);
            return Vec::new();
        }
        let creates: Vec<Action> = if self.is_indexed() {
            let free = self.ripe_indexes().into_iter().take(missing);
            free.filter_map(|index| self.create(Some(index))).collect()
        } else {
            (0..missing).filter_map(|_| self.create(None)).collect()
        };
        slow_start(creates)
    }

    /// Free indexes that need not wait after a failure.
    fn ripe_indexes(&mut self) -> Vec<usize> {
        let mut free = self.count.free_indexes(self.completions().unwrap_or(0));
        let Some(per_index) = &self.count.per_index else { return free };
        let (patience, outcome) = (&mut self.patience, &mut self.outcome);
        free.retain(|index| {
            let left = per_index.past(*index).and_then(|(failures, last)| patience.left(failures, last, self.context));
            left.iter().for_each(|left| outcome.requeue_in(*left));
            left.is_none()
        });
        free
    }

    /// How long yet until another pod may be made after failures.
    fn backoff(&mut self) -> Option<Duration> {
        let (failures, last) = self.count.recent_failures?;
        self.patience.left(failures, last, self.context)
    }

    /// Deletes pods that have not failed: first nothing holds them any more, so that they are not counted.
    fn take_back(&self, pods: &[Arc<Pod>]) -> Vec<Action> {
        let untracked = together(pods.iter().filter_map(untrack).collect());
        untracked.into_iter().chain(together(pods.iter().map(|pod| self.delete(pod)).collect())).collect()
    }

    fn create(&self, index: Option<usize>) -> Option<Action> {
        let mut pod = pods::from_template(&self.spec.template, self.job, self.context);
        pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
        if let Some(index) = index {
            indexes::mark(&mut pod, self.job, index, self.context)?;
            self.count.per_index.iter().for_each(|per_index| per_index.mark(&mut pod, index));
        }
        let done = Event::normal(self.job, "SuccessfulCreate", format!("Created pod: {}", meta::name(&pod)));
        let failed = Event::warning(self.job, "FailedCreate", "Error creating: {}".to_owned());
        Some(Action::create(&pod).tell_done(done).tell_failed(failed))
    }

    fn delete(&self, pod: &Arc<Pod>) -> Action {
        let done = Event::normal(self.job, "SuccessfulDelete", format!("Deleted pod: {}", meta::name(&**pod)));
        let failed = Event::warning(self.job, "FailedDelete", "Error deleting: {}".to_owned());
        Action::delete(&**pod).tell_done(done).tell_failed(failed)
    }

    fn fill_status(&mut self) {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let positive = |count: usize| (count > 0).then(|| number(count));
        let count = &self.count;
        self.status.active = positive(count.active.len());
        self.status.ready = Some(number(count.active.iter().filter(|pod| pods::is_ready(pod)).count()));
        self.status.terminating = Some(number(count.terminating));
        self.status.succeeded = positive(count.counted_succeeded);
        self.status.failed = positive(count.counted_failed);
        self.status.uncounted_terminated_pods = Some(count.uncounted());
        if self.is_indexed() {
            let done = Indexes::from_set(&count.completed);
            let failed = self.count.per_index.as_ref().map(|per_index| Indexes::from_set(&per_index.failed).to_string());
            self.status.failed_indexes = failed;
            self.status.completed_indexes = (!count.completed.is_empty()).then(|| done.to_string());
        }
    }

    /// The last condition comes when all pods have ended and all are counted.
    fn finish(&mut self, failed: &Option<(String, String)>) -> Vec<Event> {
        let settled = self.count.active.is_empty() && self.count.terminating == 0 && self.count.is_counted();
        if !settled {
            return Vec::new();
        }
        let decided = self.decided("SuccessCriteriaMet");
        if failed.is_none() && decided.is_none() {
            return Vec::new();
        }
        // The server insists that what is over has begun, also one that was suspended last, and not after it ended, also where
        // the clock was set back.
        let began = self.status.start_time.get_or_insert_with(|| meta::time(self.context.now)).0;
        if let Some((reason, message)) = failed {
            self.set_condition("Failed", "True", reason, message);
            return vec![Event::warning(self.job, reason, message.clone())];
        }
        let Some((reason, message)) = decided else { return Vec::new() };
        self.set_condition("Complete", "True", &reason, &message);
        self.status.completion_time = Some(meta::time(began.max(self.context.now)));
        vec![Event::normal(self.job, "Completed", "Job completed".to_owned())]
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        if conditions.iter().any(|one| one.type_ == kind && one.status == status) {
            return;
        }
        conditions.retain(|one| one.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(meta::time(self.context.now)),
            last_transition_time: Some(meta::time(self.context.now)),
        });
    }
}

#[cfg(test)]
mod tests;
