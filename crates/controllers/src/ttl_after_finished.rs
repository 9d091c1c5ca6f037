//! Finished Jobs with a time to live go when it is over. Upstream's `ttlafterfinished`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use crate::action::{Action, Outcome};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "ttl-after-finished-controller",
    identity: "ttl-after-finished-controller",
    component: "ttl-after-finished-controller",
    watches: &[Watch::Jobs(|_, job| if has_ttl(job) { vec![meta::key(job)] } else { Vec::new() })],
    reconcile,
};

fn has_ttl(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished.is_some())
}

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(job) = view.jobs.get(&key.namespace, &key.name).filter(|job| !meta::is_deleting(&**job)) else { return Outcome::nothing() };
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let (Some(ttl), Some(finished)) = (ttl, finished_at(&job)) else { return Outcome::nothing() };
    let until = finished.checked_add(SignedDuration::from_secs(ttl.into())).unwrap_or(Timestamp::MAX);
    let mut outcome = Outcome::nothing();
    if until > context.now {
        outcome.requeue_in(meta::unsigned(until.duration_since(context.now)) + Duration::from_millis(10));
        return outcome;
    }
    let mut delete = Action::delete(&*job).if_unchanged(&*job);
    if let Action::Delete { propagation, .. } = &mut delete {
        *propagation = Some("Foreground");
    }
    outcome.actions.push(delete);
    outcome
}

fn finished_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let finished =
        conditions.iter().find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    finished.last_transition_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::json;

    #[test]
    fn a_finished_job_goes_in_time() {
        let mut model = Model::new(&[
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "d", "name": "j"}, "spec": {"ttlSecondsAfterFinished": 100}}),
        ]);
        let key = Key::new("d", "j");
        assert_eq!(model.step(&CONTROLLER, &key), 0);
        let now = model.now;
        model.merge::<Job>(
            "d",
            "j",
            &json!({"status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": now}]}}),
        );
        model.pass(99);
        assert_eq!(model.step(&CONTROLLER, &key), 0);
        model.pass(1);
        model.step(&CONTROLLER, &key);
        assert!(model.of_kind::<Job>().is_empty());
    }
}
