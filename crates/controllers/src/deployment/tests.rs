//! Deployments and ReplicaSets against the model: roll-outs within bounds, fixpoints, conditions, revisions.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Model, pod_status};
use crate::replica_set;

fn deployment(replicas: i32, strategy: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2, "strategy": strategy,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        },
    })
}

fn rolling(surge: &Value, unavailable: &Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn key() -> Key {
    Key::new("default", "web")
}

/// One pass over everything; whether anything was done.
fn round(model: &mut Model) -> bool {
    let mut did = model.step(&CONTROLLER, &key());
    let sets: Vec<String> = model.of_kind::<ReplicaSet>().iter().map(|set| set["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    for set in sets {
        did += model.step(&replica_set::CONTROLLER, &Key::new("default", &set));
    }
    did > 0
}

/// A kubelet starts up to `count` pods.
fn start_pods(model: &mut Model, count: usize) -> usize {
    let pending: Vec<String> = model
        .of_kind::<Pod>()
        .iter()
        .filter(|pod| pod["status"]["phase"] != "Running")
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .take(count)
        .collect();
    for name in &pending {
        let status = pod_status("Running", true, model.now);
        model.merge::<Pod>("default", name, &status);
    }
    pending.len()
}

fn run(model: &mut Model, mut check: impl FnMut(&Model)) {
    for _ in 0..400 {
        let did = round(model);
        check(model);
        let started = start_pods(model, 1);
        model.pass(1);
        if !did && started == 0 {
            return;
        }
    }
    panic!("no fixpoint: {:#?}", model.log);
}

fn status(model: &Model) -> &Value {
    &model.get::<Deployment>("default", "web")["status"]
}

fn conditions(model: &Model) -> Vec<String> {
    let conditions = status(model)["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .iter()
        .map(|one| format!("{}={} {} {}", one["type"], one["status"], one["reason"], one["message"]).replace(['"', '\\'], ""))
        .collect()
}

#[test]
fn a_new_deployment_comes_up() {
    let mut model = Model::new(&[deployment(3, &rolling(&json!("25%"), &json!("25%")))]);
    run(&mut model, |_| {});
    let sets = model.of_kind::<ReplicaSet>();
    let name = sets[0]["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("web-").unwrap();
    assert_eq!(sets[0]["spec"]["selector"]["matchLabels"]["pod-template-hash"], hash);
    assert_eq!(sets[0]["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"], "4");
    assert_eq!(status(&model)["availableReplicas"], 3);
    assert_eq!(model.get::<Deployment>("default", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(model.events[0], format!("ScalingReplicaSet: Scaled up replica set {name} from 0 to 3"));
    assert!(model.events[1].starts_with(&format!("SuccessfulCreate: Created pod: {name}-")));
    assert_eq!(
        conditions(&model),
        [
            "Available=True MinimumReplicasAvailable Deployment has minimum availability.".to_owned(),
            format!("Progressing=True NewReplicaSetAvailable ReplicaSet {name} has successfully progressed."),
        ]
    );
}

#[test]
fn revisions_are_numbered_kept_and_rolled_back_to() {
    let mut model = Model::new(&[deployment(2, &rolling(&json!(1), &json!(0)))]);
    run(&mut model, |_| {});
    for image in ["v2", "v3", "v4", "v5", "v4"] {
        model.merge::<Deployment>(
            "default",
            "web",
            &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}),
        );
        run(&mut model, |_| {});
    }
    let mut revisions: Vec<_> = model
        .of_kind::<ReplicaSet>()
        .iter()
        .map(|set| {
            let notes = &set["metadata"]["annotations"];
            let history = notes["deployment.kubernetes.io/revision-history"].as_str().unwrap_or("");
            format!(
                "{} {} [{history}] {}",
                set["spec"]["template"]["spec"]["containers"][0]["image"],
                notes["deployment.kubernetes.io/revision"],
                set["spec"]["replicas"]
            )
        })
        .collect();
    revisions.sort();
    assert_eq!(revisions, [r#""v3" "3" [] 0"#, r#""v4" "6" [4] 2"#, r#""v5" "5" [] 0"#]);
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut model = Model::new(&[deployment(3, &json!({"type": "Recreate"}))]);
    run(&mut model, |_| {});
    model.merge::<Deployment>("default", "web", &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}));
    run(&mut model, |model| {
        let images: std::collections::BTreeSet<_> =
            model.of_kind::<Pod>().iter().map(|pod| pod["spec"]["containers"][0]["image"].to_string()).collect();
        assert!(images.len() <= 1, "{images:?}");
    });
    assert_eq!(status(&model)["updatedReplicas"], 3);
}

#[test]
fn a_roll_out_that_stands_still_times_out() {
    let mut model = Model::new(&[deployment(1, &rolling(&json!(1), &json!(0)))]);
    for _ in 0..5 {
        round(&mut model);
    }
    model.pass(700);
    round(&mut model);
    assert!(conditions(&model)[1].contains("Progressing=False ProgressDeadlineExceeded ReplicaSet web-"), "{:?}", conditions(&model));
}

#[test]
fn refused_pods_show_on_both() {
    let mut model = Model::new(&[deployment(2, &rolling(&json!(1), &json!(0)))]);
    model.refuse_creates_of = Some("Pod".to_owned());
    for _ in 0..4 {
        round(&mut model);
    }
    assert!(model.events.contains(&"FailedCreate: Error creating: refused".to_owned()));
    assert!(conditions(&model).contains(&"ReplicaFailure=True FailedCreate refused".to_owned()), "{:?}", conditions(&model));
    model.refuse_creates_of = None;
    run(&mut model, |_| {});
    assert!(conditions(&model).iter().all(|condition| !condition.starts_with("ReplicaFailure")));
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let mut model = Model::new(&[deployment(2, &rolling(&json!(1), &json!(0)))]);
    run(&mut model, |_| {});
    let set = model.of_kind::<ReplicaSet>()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pod = model.of_kind::<Pod>()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    model.merge::<Pod>("default", &pod, &json!({"metadata": {"labels": {"app": "other"}}}));
    run(&mut model, |_| {});
    assert_eq!(model.get::<Pod>("default", &pod)["metadata"]["ownerReferences"], json!([]));
    assert_eq!(model.of_kind::<Pod>().len(), 3);
    model.merge::<Pod>("default", &pod, &json!({"metadata": {"labels": {"app": "web"}}}));
    model.log.clear();
    run(&mut model, |_| {});
    assert_eq!(model.of_kind::<Pod>().len(), 2);
    assert!(model.log.contains(&format!("require ReplicaSet {set}")), "{:?}", model.log);
}

#[test]
fn paused_does_not_roll() {
    let mut model = Model::new(&[deployment(2, &rolling(&json!(1), &json!(0)))]);
    run(&mut model, |_| {});
    let change = json!({"spec": {"paused": true, "replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
    model.merge::<Deployment>("default", "web", &change);
    run(&mut model, |_| {});
    assert_eq!(model.of_kind::<ReplicaSet>().len(), 1);
    assert_eq!(model.of_kind::<Pod>().len(), 3);
    assert!(conditions(&model).contains(&"Progressing=Unknown DeploymentPaused Deployment is paused".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never more pods than replicas + surge, never fewer available than replicas - unavailable, and it ends with all new.
    #[test]
    fn a_rolling_update_stays_within_its_bounds(replicas in 1..7i32, surge in 0..4i32, unavailable in 0..4i32, percent: bool) {
        let value = |n: i32| if percent { json!(format!("{}%", n * 25)) } else { json!(n) };
        let mut model = Model::new(&[deployment(replicas, &rolling(&value(surge), &value(unavailable)))]);
        run(&mut model, |_| {});
        model.merge::<Deployment>("default", "web", &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}));
        let bounds = bounds(&serde_json::from_value(model.get::<Deployment>("default", "web").clone()).unwrap());
        run(&mut model, |model| {
            let pods = model.of_kind::<Pod>();
            let ready = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
            assert!(i32::try_from(pods.len()).unwrap() <= replicas + bounds.surge);
            assert!(i32::try_from(ready).unwrap() >= replicas - bounds.unavailable);
        });
        prop_assert_eq!(&status(&model)["updatedReplicas"], &json!(replicas));
        prop_assert_eq!(&status(&model)["availableReplicas"], &json!(replicas));
        prop_assert!(!round(&mut model));
    }
}

#[test]
fn progress_is_told_of_the_set_that_there_is() {
    let mut model = Model::new(&[deployment(3, &rolling(&json!("25%"), &json!("25%")))]);
    run(&mut model, |_| {});
    let settled = conditions(&model);
    // A crash after the new set was made, and before the status said so.
    let mut told = status(&model)["conditions"].clone();
    told[1]["message"] = json!("ReplicaSet \"web-of-before\" has successfully progressed.");
    model.merge::<Deployment>("default", "web", &json!({"status": {"conditions": told}}));
    assert_ne!(conditions(&model), settled);
    run(&mut model, |_| {});
    assert_eq!(conditions(&model), settled);
}
