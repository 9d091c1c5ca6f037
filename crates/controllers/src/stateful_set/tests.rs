//! StatefulSets in the model cluster.

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::*;
use crate::model::{Model, pod_status};

fn cluster(more: &Value) -> Model {
    let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "d", "name": "db"}, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}});
    crate::action::merge(&mut set["spec"], more);
    Model::new(&[set])
}

fn key() -> Key {
    Key::new("d", "db")
}

/// Pods as `name image`.
fn pods_of(model: &Model) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |pod: &&Value| format!("{} {}", text(&pod["metadata"]["name"]), text(&pod["spec"]["containers"][0]["image"]));
    model.of_kind::<Pod>().iter().map(one).collect()
}

fn start_all(model: &mut Model) {
    let waiting = |pod: &&Value| pod["status"]["phase"].is_null();
    let names: Vec<String> =
        model.of_kind::<Pod>().into_iter().filter(waiting).map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let ready = pod_status("Running", true, model.now);
    names.iter().for_each(|name| model.merge::<Pod>("d", name, &ready));
}

/// Starts what is made until nothing changes; answers how many pods were seen after each round.
fn run(model: &mut Model) -> Vec<usize> {
    let mut seen = Vec::new();
    loop {
        model.settle(&CONTROLLER, &key());
        let before = model.revision;
        start_all(model);
        seen.push(model.of_kind::<Pod>().len());
        if model.revision == before {
            return seen;
        }
    }
}

fn status(model: &Model) -> &Value {
    &model.get::<StatefulSet>("d", "db")["status"]
}

fn image(model: &mut Model, image: &str) {
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    model.merge::<StatefulSet>("d", "db", &template);
}

#[test]
fn pods_come_one_after_another_or_all_at_once() {
    let mut model = cluster(&json!({}));
    assert_eq!(run(&mut model), [1, 2, 3, 3]);
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    let pod = model.get::<Pod>("d", "db-1");
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(model.of_kind::<PersistentVolumeClaim>().len(), 3);
    assert_eq!((&status(&model)["readyReplicas"], &status(&model)["currentReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(
        model.events[..2],
        [
            "SuccessfulCreate: create Claim data-db-0 Pod db-0 in StatefulSet db success",
            "SuccessfulCreate: create Pod db-0 in StatefulSet db successful"
        ]
    );
    let mut model = cluster(&json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(run(&mut model)[0], 3);
    assert_eq!(pods_of(&model), ["db-5 v1", "db-6 v1", "db-7 v1"]);
}

#[test]
fn rolls_from_the_top_one_by_one_and_back() {
    let mut model = cluster(&json!({}));
    run(&mut model);
    let first = status(&model)["currentRevision"].clone();
    image(&mut model, "v2");
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    assert_ne!(status(&model)["updateRevision"], first);
    run(&mut model);
    assert_eq!(pods_of(&model), ["db-0 v2", "db-1 v2", "db-2 v2"]);
    assert_eq!(status(&model)["currentRevision"], status(&model)["updateRevision"]);
    // As `kubectl rollout undo` does it.
    image(&mut model, "v1");
    run(&mut model);
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    assert_eq!(status(&model)["currentRevision"], first);
    let mut numbers: Vec<i64> = model.of_kind::<ControllerRevision>().iter().map(|one| one["revision"].as_i64().unwrap()).collect();
    numbers.sort();
    assert_eq!(numbers, [2, 3]);
    let data = &model.get::<ControllerRevision>("d", first.as_str().unwrap())["data"];
    assert_eq!(data["spec"]["template"]["$patch"], "replace");
}

#[test]
fn history_is_bounded() {
    let mut model = cluster(&json!({"revisionHistoryLimit": 1}));
    for version in ["v2", "v3", "v4"] {
        image(&mut model, version);
        run(&mut model);
    }
    assert_eq!(model.of_kind::<ControllerRevision>().len(), 2);
}

#[test]
fn partitions_and_on_delete_hold_back() {
    let mut model = cluster(&json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
    run(&mut model);
    image(&mut model, "v2");
    run(&mut model);
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v2"]);
    assert_ne!(status(&model)["currentRevision"], status(&model)["updateRevision"]);
    // One that dies below the partition comes back as it was.
    model.merge::<Pod>("d", "db-0", &json!({"status": {"phase": "Failed"}}));
    run(&mut model);
    assert_eq!(pods_of(&model)[0], "db-0 v1");

    let mut model = cluster(&json!({"updateStrategy": {"type": "OnDelete"}}));
    run(&mut model);
    image(&mut model, "v2");
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v1"]);
    model.merge::<Pod>("d", "db-1", &json!({"metadata": {"deletionTimestamp": "2023-11-14T22:13:20Z"}}));
    run(&mut model);
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v2", "db-2 v1"]);
}

#[test]
fn several_may_be_down_in_parallel() {
    let more = json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}});
    let mut model = cluster(&more);
    run(&mut model);
    image(&mut model, "v2");
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1", "db-2 v1", "db-3 v2", "db-4 v2"]);
    // Broken ones of the old revision never block.
    model.merge::<Pod>("d", "db-0", &json!({"status": {"conditions": []}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model)[..3], ["db-0 v2", "db-1 v1", "db-2 v1"]);
    run(&mut model);
    assert!(pods_of(&model).iter().all(|pod| pod.ends_with("v2")));
}

#[test]
fn scaling_down_takes_the_highest_and_waits_for_the_sick() {
    let mut model = cluster(&json!({}));
    run(&mut model);
    model.merge::<Pod>("d", "db-0", &json!({"status": {"conditions": []}}));
    model.merge::<StatefulSet>("d", "db", &json!({"spec": {"replicas": 1}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model).len(), 3, "a sick pod must recover before others go");
    let ready = pod_status("Running", true, model.now);
    model.merge::<Pod>("d", "db-0", &ready);
    model.step(&CONTROLLER, &key());
    assert_eq!(pods_of(&model), ["db-0 v1", "db-1 v1"]);
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model), ["db-0 v1"]);
    assert_eq!(model.of_kind::<PersistentVolumeClaim>().len(), 3, "claims are kept");
}

#[test]
fn claims_go_with_pods_or_with_the_set() {
    let owners = |model: &Model, claim: &str| -> Vec<String> {
        let owners = model.get::<PersistentVolumeClaim>("d", claim)["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        owners.iter().map(|owner| format!("{} {}", owner["kind"].as_str().unwrap(), owner["name"].as_str().unwrap())).collect()
    };
    let policy = json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}});
    let mut model = cluster(&policy);
    run(&mut model);
    assert_eq!(owners(&model, "data-db-2"), ["StatefulSet db"]);
    model.merge::<StatefulSet>("d", "db", &json!({"spec": {"replicas": 2}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(
        (owners(&model, "data-db-1"), owners(&model, "data-db-2")),
        (vec!["StatefulSet db".to_owned()], vec!["Pod db-2".to_owned()])
    );
    // Up again: the claim of the old pod must go first.
    model.merge::<StatefulSet>("d", "db", &json!({"spec": {"replicas": 3}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(pods_of(&model).len(), 2);
    model.objects.remove(&("PersistentVolumeClaim".into(), "d".into(), "data-db-2".into()));
    run(&mut model);
    assert_eq!(pods_of(&model).len(), 3);
    model.merge::<StatefulSet>("d", "db", &json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}}));
    model.settle(&CONTROLLER, &key());
    assert_eq!(owners(&model, "data-db-0"), Vec::<String>::new());
}

#[test]
fn a_claim_gets_its_set_as_owner_only_while_the_set_lives() {
    let mut model = cluster(&json!({}));
    run(&mut model);
    model.merge::<StatefulSet>("d", "db", &json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}}));
    model.log.clear();
    model.settle(&CONTROLLER, &key());
    let about: Vec<&str> =
        model.log.iter().map(String::as_str).filter(|line| line.contains("Claim") || line.starts_with("require")).collect();
    let asked = ["require StatefulSet db"; 3];
    let claims =
        ["patch PersistentVolumeClaim data-db-0", "patch PersistentVolumeClaim data-db-1", "patch PersistentVolumeClaim data-db-2"];
    assert_eq!(about, asked.into_iter().zip(claims).flat_map(|(asked, claim)| [asked, claim]).collect::<Vec<_>>());
}

#[test]
fn one_that_goes_makes_no_revision() {
    let mut model = cluster(&json!({}));
    model.merge::<StatefulSet>(
        "d",
        "db",
        &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}}),
    );
    model.settle(&CONTROLLER, &key());
    assert!(model.of_kind::<k8s_openapi::api::apps::v1::ControllerRevision>().is_empty(), "{:?}", model.log);
}
