//! Jobs in the model cluster: parallelism, completions, indexes, failures, suspension.

use serde_json::{Value, json};

use super::*;
use crate::model::Model;

fn job(spec: Value) -> Model {
    let mut spec = spec;
    spec["template"] = json!({"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}});
    spec["selector"] = json!({"matchLabels": {"job": "j"}});
    Model::new(&[json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "d", "name": "j"}, "spec": spec})])
}

fn key() -> Key {
    Key::new("d", "j")
}

fn status(model: &Model) -> &Value {
    &model.get::<Job>("d", "j")["status"]
}

fn conditions(model: &Model) -> Vec<String> {
    let all = status(model)["conditions"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|one| format!("{}={} {}", one["type"].as_str().unwrap(), one["status"].as_str().unwrap(), one["reason"].as_str().unwrap()))
        .collect()
}

/// Pods that run, by name.
fn running(model: &Model) -> Vec<String> {
    let pods = model.of_kind::<Pod>().into_iter().filter(|pod| pod["status"]["phase"].is_null());
    pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Ends the first running pods.
fn end(model: &mut Model, count: usize, phase: &str, exit_code: i32) {
    let now = model.now;
    for name in running(model).into_iter().take(count) {
        let ended = json!({"name": "c", "state": {"terminated": {"exitCode": exit_code, "finishedAt": now}}});
        model.merge::<Pod>("d", &name, &json!({"status": {"phase": phase, "containerStatuses": [ended]}}));
    }
}

#[test]
fn completions_with_parallelism() {
    let mut model = job(json!({"completions": 5, "parallelism": 2}));
    for left in (1..=5).rev() {
        model.settle(&CONTROLLER, &key());
        assert_eq!(running(&model).len(), left.min(2));
        end(&mut model, 1, "Succeeded", 0);
    }
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model), ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]);
    assert_eq!(status(&model)["succeeded"], 5);
    assert_eq!(status(&model)["uncountedTerminatedPods"], json!({}));
    assert!(model.of_kind::<Pod>().iter().all(|pod| pod["metadata"]["finalizers"] == json!([])));
    assert_eq!(model.events.last().unwrap(), "Completed: Job completed");
}

#[test]
fn a_work_queue_ends_with_its_pods() {
    let mut model = job(json!({"parallelism": 3}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(running(&model).len(), 3);
    end(&mut model, 1, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!((running(&model).len(), conditions(&model).len()), (2, 0));
    end(&mut model, 2, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(status(&model)["succeeded"], 3);
    assert_eq!(conditions(&model).len(), 2);
}

#[test]
fn failures_back_off_and_then_fail_the_job() {
    let mut model = job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    model.settle(&CONTROLLER, &key());
    end(&mut model, 1, "Failed", 1);
    model.settle(&CONTROLLER, &key());
    assert_eq!(running(&model).len(), 0);
    model.pass(10);
    model.settle(&CONTROLLER, &key());
    assert_eq!(running(&model).len(), 1);
    end(&mut model, 1, "Failed", 1);
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model), ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]);
    assert_eq!(status(&model)["failed"], 2);
    model.pass(1000);
    assert_eq!(model.step(&CONTROLLER, &key()), 0);
}

#[test]
fn each_index_completes_once() {
    let mut model = job(json!({"completions": 4, "parallelism": 3, "completionMode": "Indexed"}));
    model.settle(&CONTROLLER, &key());
    let names = running(&model);
    assert!(names[0].starts_with("j-0-") && names[2].starts_with("j-2-"));
    let pod = model.get::<Pod>("d", &names[1]);
    assert_eq!(pod["spec"]["hostname"], "j-1");
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    let now = model.now;
    model.merge::<Pod>("d", &names[1], &json!({"status": {"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": now}}}]}}));
    end(&mut model, 1, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(status(&model)["completedIndexes"], "0");
    model.pass(20);
    model.settle(&CONTROLLER, &key());
    assert_eq!(running(&model).iter().map(|name| &name[..4]).collect::<Vec<_>>(), ["j-1-", "j-2-", "j-3-"]);
    end(&mut model, 3, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(status(&model)["completedIndexes"], "0-3");
    assert_eq!(status(&model)["failed"], 1);
    assert_eq!(conditions(&model)[1], "Complete=True CompletionsReached");
}

#[test]
fn suspended_jobs_have_no_pods() {
    let mut model = job(json!({"completions": 2, "parallelism": 2, "suspend": true}));
    model.settle(&CONTROLLER, &key());
    assert_eq!((running(&model).len(), conditions(&model)), (0, vec!["Suspended=True JobSuspended".to_owned()]));
    assert!(status(&model)["startTime"].is_null());
    model.merge::<Job>("d", "j", &json!({"spec": {"suspend": false}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!((running(&model).len(), conditions(&model)), (2, vec!["Suspended=False JobResumed".to_owned()]));
    assert_eq!(model.events[..2], ["Suspended: Job suspended", "Resumed: Job resumed"]);
}

#[test]
fn policies_and_deadlines() {
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}, {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    let mut model = job(json!({"completions": 1, "backoffLimit": 0, "podFailurePolicy": {"rules": rules}}));
    model.settle(&CONTROLLER, &key());
    let name = running(&model)[0].clone();
    model.merge::<Pod>("d", &name, &json!({"status": {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model).len(), 0);
    model.pass(60);
    model.settle(&CONTROLLER, &key());
    end(&mut model, 1, "Failed", 42);
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model), ["FailureTarget=True PodFailurePolicy", "Failed=True PodFailurePolicy"]);
    assert!(
        status(&model)["conditions"][0]["message"].as_str().unwrap().contains("failed with exit code 42 matching FailJob rule at index 1")
    );

    let mut model = job(json!({"completions": 1, "activeDeadlineSeconds": 30}));
    model.settle(&CONTROLLER, &key());
    model.pass(30);
    for _ in 0..3 {
        model.step(&CONTROLLER, &key());
        for name in running(&model) {
            model.merge::<Pod>("d", &name, &json!({"status": {"phase": "Failed"}}));
        }
    }
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model)[1], "Failed=True DeadlineExceeded");
}

/// Fails the running pod of an index.
fn fail_index(model: &mut Model, index: usize, code: i32) {
    let prefix = format!("j-{index}-");
    let name = running(model).into_iter().find(|name| name.starts_with(&prefix)).unwrap();
    let ended = json!({"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": model.now}}});
    model.merge::<Pod>("d", &name, &json!({"status": {"phase": "Failed", "containerStatuses": [ended]}}));
    model.settle(&CONTROLLER, &key());
}

#[test]
fn indexes_fail_one_by_one() {
    let rules = json!([{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]);
    let mut model = job(json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "backoffLimit": i32::MAX, "podFailurePolicy": {"rules": rules}}));
    model.settle(&CONTROLLER, &key());
    fail_index(&mut model, 0, 1);
    assert_eq!((running(&model).len(), &status(&model)["failedIndexes"]), (2, &json!("")), "it waits for itself alone");
    model.pass(10);
    model.settle(&CONTROLLER, &key());
    let again = running(&model).into_iter().find(|name| name.starts_with("j-0-")).unwrap();
    assert_eq!(model.get::<Pod>("d", &again)["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    fail_index(&mut model, 0, 1);
    assert_eq!(status(&model)["failedIndexes"], "0");
    fail_index(&mut model, 2, 42);
    assert_eq!((&status(&model)["failedIndexes"], conditions(&model).len()), (&json!("0,2"), 0));
    end(&mut model, 1, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model), ["FailureTarget=True FailedIndexes", "Failed=True FailedIndexes"]);
    assert_eq!((&status(&model)["failed"], &status(&model)["succeeded"]), (&json!(3), &json!(1)));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut model = job(
        json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": i32::MAX}),
    );
    model.settle(&CONTROLLER, &key());
    fail_index(&mut model, 0, 1);
    assert_eq!(conditions(&model).len(), 0);
    fail_index(&mut model, 3, 1);
    assert_eq!(conditions(&model)[0], "FailureTarget=True MaxFailedIndexesExceeded");
}

#[test]
fn a_success_policy_is_content_with_less() {
    let policy = json!({"rules": [{"succeededIndexes": "3", "succeededCount": 1}, {"succeededCount": 2}]});
    let mut model = job(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "successPolicy": policy}));
    model.settle(&CONTROLLER, &key());
    end(&mut model, 1, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model).len(), 0);
    end(&mut model, 1, "Succeeded", 0);
    for _ in 0..3 {
        model.step(&CONTROLLER, &key());
        for name in running(&model) {
            model.merge::<Pod>("d", &name, &json!({"status": {"phase": "Failed"}}));
        }
    }
    model.settle(&CONTROLLER, &key());
    assert_eq!(conditions(&model), ["SuccessCriteriaMet=True SuccessPolicy", "Complete=True SuccessPolicy"]);
    assert_eq!(status(&model)["conditions"][0]["message"], "Matched rules at index 1");
}

#[test]
fn pods_that_are_taken_back_do_not_count_as_failed() {
    let mut model = job(json!({"completions": 2, "parallelism": 2, "backoffLimit": 0}));
    model.settle(&CONTROLLER, &key());
    model.merge::<Job>("d", "j", &json!({"spec": {"suspend": true}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!((model.of_kind::<Pod>().len(), &status(&model)["failed"]), (0, &Value::Null));
    assert_eq!(conditions(&model), ["Suspended=True JobSuspended"]);
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let mut model = job(json!({"completions": 1}));
    model.settle(&CONTROLLER, &key());
    model.objects.remove(&("Job".into(), "d".into(), "j".into()));
    let name = running(&model)[0].clone();
    // Also when the next of that name is there already.
    let next = job(json!({"completions": 1, "suspend": true})).get::<Job>("d", "j").clone();
    let mut younger = model.clone();
    younger.objects.insert(("Job".into(), "d".into(), "j".into()), next);
    younger.merge::<Job>("d", "j", &json!({"metadata": {"uid": "another"}}));
    younger.merge::<Pod>("d", &name, &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
    younger.settle(&CONTROLLER, &key());
    assert_eq!(younger.of_kind::<Pod>().len(), 0);
    model.merge::<Pod>("d", &name, &json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}));
    assert_eq!(model.of_kind::<Pod>().len(), 1);
    model.settle(&CONTROLLER, &key());
    assert_eq!(model.of_kind::<Pod>().len(), 0);
}

#[test]
fn a_pod_that_lost_its_job_is_not_held() {
    let mut model = job(json!({"completions": 1}));
    model.settle(&CONTROLLER, &key());
    let pod = running(&model).remove(0);
    // As the garbage collector does for a Job that is deleted and leaves its pods.
    model.merge::<Pod>("d", &pod, &json!({"metadata": {"ownerReferences": null}}));
    model.objects.retain(|(kind, ..), _| kind != "Job");
    let object: Pod = serde_json::from_value(model.get::<Pod>("d", &pod).clone()).unwrap();
    let keys = keys_of_pod(&object);
    assert_eq!(keys, [Key::new("d", &format!("pod/{pod}"))]);
    model.settle(&CONTROLLER, &keys[0]);
    assert_eq!(model.get::<Pod>("d", &pod)["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_failure_in_the_future_is_waited_for_no_longer_than_others() {
    let mut model = job(json!({"completions": 1}));
    model.settle(&CONTROLLER, &key());
    // By the clock of its node, or before ours was set back.
    model.pass(3600);
    end(&mut model, 1, "Failed", 1);
    model.pass(-3600);
    for _ in 0..9 {
        model.settle(&CONTROLLER, &key());
        assert!(running(&model).is_empty());
        model.pass(1);
    }
    model.pass(1);
    model.settle(&CONTROLLER, &key());
    assert_eq!(running(&model).len(), 1);
}

#[test]
fn what_is_over_has_begun_before() {
    let mut model = job(json!({"completions": 1}));
    model.settle(&CONTROLLER, &key());
    model.pass(-3600);
    end(&mut model, 1, "Succeeded", 0);
    model.settle(&CONTROLLER, &key());
    assert_eq!(status(&model)["completionTime"], status(&model)["startTime"], "the clock was set back");

    let mut model = job(json!({"completions": 1, "backoffLimit": 0}));
    model.settle(&CONTROLLER, &key());
    end(&mut model, 1, "Failed", 1);
    model.merge::<Job>("d", "j", &json!({"spec": {"suspend": true}}));
    model.settle(&CONTROLLER, &key());
    assert!(conditions(&model).contains(&"Failed=True BackoffLimitExceeded".to_owned()), "{:?}", conditions(&model));
    assert!(status(&model)["startTime"].is_string(), "{}", status(&model));
}
