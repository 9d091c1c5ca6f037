//! CronJobs in the model cluster, which begins on Tuesday 14 November 2023 at 22:13:20 UTC.

use serde_json::{Value, json};

use super::*;
use crate::model::Model;

fn cron(more: &Value) -> Model {
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"namespace": "d", "name": "c"}, "spec": {
        "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}}}}});
    crate::action::merge(&mut cron["spec"], more);
    let mut model = Model::new(&[cron]);
    model.settle(&CONTROLLER, &key());
    model
}

fn key() -> Key {
    Key::new("d", "c")
}

fn after(model: &mut Model, seconds: i64) -> usize {
    model.pass(seconds);
    model.settle(&CONTROLLER, &key());
    model.of_kind::<Job>().len()
}

fn status(model: &Model) -> &Value {
    &model.get::<CronJob>("d", "c")["status"]
}

fn end_all(model: &mut Model, condition: &str) {
    let names: Vec<String> = model.of_kind::<Job>().iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let now = model.now;
    let ended = json!({"status": {"completionTime": now, "startTime": now, "conditions": [{"type": condition, "status": "True"}]}});
    for name in names {
        if model.get::<Job>("d", &name)["status"].is_null() {
            model.merge::<Job>("d", &name, &ended);
        }
    }
}

#[test]
fn one_that_may_be_gone_is_asked_for_first() {
    for policy in ["Allow", "Replace"] {
        let mut model = cron(&json!({"concurrencyPolicy": policy}));
        assert_eq!((after(&mut model, 400), after(&mut model, 600)), (1, if policy == "Allow" { 2 } else { 1 }));
        let first = |verb: &str| model.log.iter().rposition(|line| line.starts_with(verb)).unwrap();
        assert!(first("require CronJob") < first("create Job"), "{:?}", model.log);
        if policy == "Replace" {
            assert!(first("require CronJob") < first("delete Job"), "{:?}", model.log);
        }
    }
}

#[test]
fn jobs_start_on_time_and_old_ones_go() {
    let mut model = cron(&json!({}));
    assert_eq!(model.of_kind::<Job>().len(), 0);
    assert_eq!(after(&mut model, 400), 1);
    let job = model.of_kind::<Job>()[0].clone();
    assert_eq!(job["metadata"]["name"], "c-28333340");
    assert_eq!(job["metadata"]["annotations"][SCHEDULED], "2023-11-14T22:20:00Z");
    assert_eq!((&job["metadata"]["labels"]["a"], &status(&model)["lastScheduleTime"]), (&json!("b"), &json!("2023-11-14T22:20:00Z")));
    assert_eq!(status(&model)["active"][0]["name"], "c-28333340");
    assert_eq!(after(&mut model, 500), 1, "not before its time");
    end_all(&mut model, "Complete");
    assert_eq!(after(&mut model, 100), 2);
    assert_eq!(status(&model)["active"].as_array().unwrap().len(), 1);
    assert_eq!(status(&model)["lastSuccessfulTime"], "2023-11-14T22:28:20Z");
    end_all(&mut model, "Complete");
    model.settle(&CONTROLLER, &key());
    assert_eq!(model.of_kind::<Job>().len(), 1, "one finished Job is kept");
    assert_eq!(
        model.events,
        [
            "SuccessfulCreate: Created job c-28333340",
            "SawCompletedJob: Saw completed job: c-28333340, condition: Complete",
            "SuccessfulCreate: Created job c-28333350",
            "SawCompletedJob: Saw completed job: c-28333350, condition: Complete",
            "SuccessfulDelete: Deleted job c-28333340"
        ]
    );
}

#[test]
fn one_at_a_time_or_the_newest_only() {
    let mut model = cron(&json!({"concurrencyPolicy": "Forbid"}));
    assert_eq!((after(&mut model, 400), after(&mut model, 600)), (1, 1));
    assert!(model.events[1].starts_with("JobAlreadyActive: "));
    end_all(&mut model, "Complete");
    model.settle(&CONTROLLER, &key());
    assert_eq!(model.of_kind::<Job>().len(), 2, "the time that was missed is made up for");

    let mut model = cron(&json!({"concurrencyPolicy": "Replace"}));
    assert_eq!((after(&mut model, 400), after(&mut model, 600)), (1, 1));
    assert_eq!(model.of_kind::<Job>()[0]["metadata"]["name"], "c-28333350");
}

#[test]
fn missed_times() {
    // A day off: only the newest is started, and the user hears of many.
    let mut model = cron(&json!({}));
    assert_eq!(after(&mut model, 86_400), 1);
    assert_eq!(model.of_kind::<Job>()[0]["metadata"]["annotations"][SCHEDULED], "2023-11-15T22:10:00Z");
    assert!(model.events[0].starts_with("TooManyMissedTimes: "));
    // Out of the deadline there is nothing to start.
    let mut model = cron(&json!({"startingDeadlineSeconds": 60}));
    assert_eq!(after(&mut model, 600), 0);
    assert_eq!(after(&mut model, 420), 1);
    // Suspended ones do nothing; resumed ones make up for the newest.
    let mut model = cron(&json!({"suspend": true}));
    assert_eq!(after(&mut model, 86_400), 0);
    model.merge::<CronJob>("d", "c", &json!({"spec": {"suspend": false}}));
    assert_eq!(after(&mut model, 0), 1);
}

#[test]
fn places_and_nonsense() {
    let mut model = cron(&json!({"schedule": "0 4 * * *", "timeZone": "Asia/Kolkata"}));
    assert_eq!(after(&mut model, 17 * 60), 1);
    assert_eq!(model.of_kind::<Job>()[0]["metadata"]["annotations"][SCHEDULED], "2023-11-15T04:00:00+05:30");
    let mut model = cron(&json!({"timeZone": "No/Where"}));
    assert_eq!(after(&mut model, 86_400), 0);
    assert_eq!(model.events, ["UnknownTimeZone: invalid timeZone: \"No/Where\": unknown time zone No/Where"]);
    let mut model = cron(&json!({"schedule": "nonsense"}));
    assert_eq!((after(&mut model, 86_400), model.events.len()), (0, 1));
}
