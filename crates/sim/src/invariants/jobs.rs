//! Jobs run no more pods at once than they may, one per index, and count every pod that ended exactly once. CronJobs start
//! one Job per time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Checked, LATE, Recent, Step};
use crate::state::{State, controller, is_active, is_deleting, number, owners, text, uid_of};

const TRACKED: &str = "batch.kubernetes.io/job-tracking";
const TIME: &str = "/metadata/annotations/batch.kubernetes.io~1cronjob-scheduled-timestamp";

#[derive(Default)]
pub struct Jobs {
    parallelism: BTreeMap<String, Recent>,
    /// UIDs of pods that succeeded, by Job.
    succeeded: BTreeMap<String, BTreeSet<String>>,
    /// Of these, those that the Job held when they succeeded and then let go: it must have counted them. One that it took
    /// back, for being too many or suspended, is not held any more, and may yet succeed while it is told to end.
    released: BTreeMap<String, BTreeSet<String>>,
    /// UIDs of Jobs by CronJob and time.
    times: BTreeMap<(String, String), String>,
}

impl Jobs {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        if step.is("jobs/") {
            if let Some(job) = step.after() {
                self.job(step, job)?;
            }
            return Ok(());
        }
        if !step.is("pods/") {
            return Ok(());
        }
        let pod = step.after().or(step.before());
        let Some(pod) = pod.filter(|pod| owners(pod).iter().any(|owner| owner["kind"] == "Job")) else { return Ok(()) };
        let Some(uid) = controller(pod) else { return Ok(()) };
        if text(pod, "/status/phase") == "Succeeded" {
            self.succeeded.entry(uid.to_owned()).or_default().insert(uid_of(pod).to_owned());
            let was_held = step.before().is_some_and(is_tracked);
            if was_held && step.after().is_none_or(|pod| !is_tracked(pod)) {
                self.released.entry(uid.to_owned()).or_default().insert(uid_of(pod).to_owned());
                self.none_lost(step, uid, state)?;
            }
        }
        if step.before().is_none() { self.parallel(step, uid, pod, state) } else { Ok(()) }
    }

    fn job(&mut self, step: &Step<'_>, job: &Value) -> Checked {
        let uid = uid_of(job);
        self.parallelism.entry(uid.to_owned()).or_default().set(step.now, number(job, "/spec/parallelism"));
        let ended = self.succeeded.get(uid).map_or(0, BTreeSet::len);
        let told = counted(job);
        if told > ended {
            return Err(format!("{} counts {told} pods that succeeded, and there were {ended}", step.key));
        }
        let before = step.before().map_or(0, |old| number(old, "/status/succeeded"));
        if number(job, "/status/succeeded") < before && text(job, "/spec/completionMode") != "Indexed" {
            return Err(format!("{} had {before} pods that succeeded, now fewer", step.key));
        }
        if let (None, Some(owner), time) = (step.before(), controller(job), text(job, TIME))
            && !time.is_empty()
            && let Some(other) = self.times.insert((owner.to_owned(), time.to_owned()), uid.to_owned())
            && other != uid
        {
            return Err(format!("{} is the second Job for {time}", step.key));
        }
        Ok(())
    }

    /// A pod that the Job let go is in its count.
    fn none_lost(&self, step: &Step<'_>, uid: &str, state: &State) -> Checked {
        let Some((key, job)) = state.under("/registry/jobs/").find(|(_, job)| uid_of(job) == uid) else { return Ok(()) };
        let released = self.released.get(uid).map_or(0, BTreeSet::len);
        // An indexed Job counts indexes: the second success of one is no other success.
        if is_deleting(job) || text(job, "/spec/completionMode") == "Indexed" || released <= counted(job) {
            return Ok(());
        }
        Err(format!("{key} lets go of {released} pods that succeeded with {}, and counts {}", step.key, counted(job)))
    }

    fn parallel(&self, step: &Step<'_>, uid: &str, pod: &Value, state: &State) -> Checked {
        let Some(asked) = self.parallelism.get(uid) else { return Ok(()) };
        let (active, most) = (state.pods_of(uid).filter(|pod| is_active(pod)).count(), asked.max(step.now, LATE));
        if i64::try_from(active).is_ok_and(|active| active > most) {
            return Err(format!("with {} its Job runs {active} pods at once, of {most}", step.key));
        }
        const INDEX: &str = "/metadata/annotations/batch.kubernetes.io~1job-completion-index";
        let index = text(pod, INDEX);
        let same = state.pods_of(uid).filter(|pod| is_active(pod) && text(pod, INDEX) == index).count();
        if !index.is_empty() && same > 1 { Err(format!("{} is active beside another of index {index}", step.key)) } else { Ok(()) }
    }
}

fn is_tracked(pod: &Value) -> bool {
    let finalizers = pod.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.into_iter().flatten().any(|one| one == TRACKED)
}

/// Successes in the count and on their way into it.
fn counted(job: &Value) -> usize {
    let waiting = job.pointer("/status/uncountedTerminatedPods/succeeded").and_then(Value::as_array).map_or(0, Vec::len);
    usize::try_from(number(job, "/status/succeeded")).unwrap_or(0) + waiting
}
