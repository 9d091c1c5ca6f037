//! Volumes and claims in the model cluster.

use serde_json::{Value, json};

use super::*;
use crate::model::Model;
use k8s_openapi::api::storage::v1::StorageClass;

fn volume(name: &str, size: &str, more: &Value) -> Value {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"});
    crate::action::merge(&mut spec, more);
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
}

fn claim(name: &str, size: &str, more: &Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": size}}});
    crate::action::merge(&mut spec, more);
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "d", "name": name}, "spec": spec})
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})
}

/// Both controllers over everything, until nothing changes.
fn run(model: &mut Model) {
    for _ in 0..20 {
        let names =
            |all: Vec<&Value>| -> Vec<String> { all.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect() };
        let (claims, volumes) = (names(model.of_kind::<PersistentVolumeClaim>()), names(model.of_kind::<PersistentVolume>()));
        let before = model.revision;
        for name in &volumes {
            model.step(&VOLUMES, &Key::cluster(name));
        }
        for name in &claims {
            model.step(&CLAIMS, &Key::new("d", name));
        }
        if model.revision == before {
            return;
        }
    }
    panic!("does not settle: {:#?}", model.log);
}

/// `claim phase volume` of every claim, then `volume phase claim`.
fn state(model: &Model) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let claims = model.of_kind::<PersistentVolumeClaim>();
    let volumes = model.of_kind::<PersistentVolume>();
    let one = |object: &&Value, other: &Value| {
        format!("{} {} {}", text(&object["metadata"]["name"]), text(&object["status"]["phase"]), text(other))
    };
    let claims = claims.iter().map(|claim| one(claim, &claim["spec"]["volumeName"]));
    claims.chain(volumes.iter().map(|volume| one(volume, &volume["spec"]["claimRef"]["name"]))).collect()
}

#[test]
fn the_smallest_that_suits_is_bound() {
    let mut model = Model::new(&[
        volume("big", "10Gi", &json!({})),
        volume("block", "1Gi", &json!({"volumeMode": "Block"})),
        volume("classy", "1Gi", &json!({"storageClassName": "c"})),
        volume("fit", "2Gi", &json!({})),
        volume("small", "500Mi", &json!({})),
        claim("a", "1Gi", &json!({})),
    ]);
    run(&mut model);
    assert_eq!(
        state(&model),
        ["a Bound fit", "big Available -", "block Available -", "classy Available -", "fit Bound a", "small Available -"]
    );
    let bound = model.get::<PersistentVolumeClaim>("d", "a");
    assert_eq!((&bound["status"]["capacity"]["storage"], &bound["metadata"]["annotations"][COMPLETED]), (&json!("2Gi"), &json!("yes")));
    assert_eq!(bound["metadata"]["annotations"][BY_CONTROLLER], "yes");
    assert_eq!(model.get::<PersistentVolume>("", "fit")["metadata"]["annotations"][BY_CONTROLLER], "yes");
}

#[test]
fn two_claims_never_share_a_volume_and_a_free_one_is_found_later() {
    let mut model = Model::new(&[volume("v", "1Gi", &json!({})), claim("a", "1Gi", &json!({})), claim("b", "1Gi", &json!({}))]);
    run(&mut model);
    assert_eq!(state(&model), ["a Bound v", "b Pending -", "v Bound a"]);
    assert_eq!(model.events, ["FailedBinding: no persistent volumes available for this claim and no storage class is set"]);
}

#[test]
fn what_is_asked_for_by_name_is_given_or_told_why_not() {
    let kept = json!({"claimRef": {"namespace": "d", "name": "a"}});
    let mut model = Model::new(&[
        volume("kept", "1Gi", &kept),
        volume("other", "1Gi", &json!({})),
        claim("a", "1Gi", &json!({})),
        claim("b", "5Gi", &json!({"volumeName": "other"})),
        claim("c", "1Gi", &json!({"volumeName": "kept"})),
    ]);
    run(&mut model);
    assert_eq!(state(&model), ["a Bound kept", "b Pending other", "c Pending kept", "kept Bound a", "other Available -"]);
    assert!(model.get::<PersistentVolume>("", "kept")["metadata"]["annotations"][BY_CONTROLLER].is_null(), "the user chose");
    assert!(model.events.contains(&"VolumeMismatch: Cannot bind to requested volume \"other\": requested PV is too small".to_owned()));
    assert!(model.events.contains(&"FailedBinding: volume \"kept\" already bound to a different claim.".to_owned()));
}

#[test]
fn what_becomes_of_volumes_and_claims_that_lose_each_other() {
    let mut model = Model::new(&[
        volume("v", "1Gi", &json!({})),
        volume("w", "1Gi", &json!({"persistentVolumeReclaimPolicy": "Delete"})),
        claim("a", "1Gi", &json!({"volumeName": "v"})),
        claim("b", "1Gi", &json!({"volumeName": "w"})),
    ]);
    run(&mut model);
    for name in ["a", "b"] {
        model.objects.remove(&("PersistentVolumeClaim".into(), "d".into(), name.into()));
    }
    run(&mut model);
    assert_eq!(state(&model), ["v Released a", "w Failed b"]);
    // A new claim of the same name is not the same claim.
    let mut model = Model::new(&[volume("v", "1Gi", &json!({})), claim("a", "1Gi", &json!({}))]);
    run(&mut model);
    model.objects.remove(&("PersistentVolume".into(), String::new(), "v".into()));
    run(&mut model);
    assert_eq!(state(&model), ["a Lost v"]);
    assert_eq!(model.events, ["ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"]);
}

#[test]
fn classes_wait_provision_and_default() {
    let mut model = Model::new(&[
        class("later", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("made", "example.com/maker", "Immediate"),
        volume("v", "1Gi", &json!({"storageClassName": "later"})),
        claim("a", "1Gi", &json!({"storageClassName": "later"})),
        claim("b", "1Gi", &json!({"storageClassName": "made"})),
        claim("c", "1Gi", &json!({"storageClassName": "none"})),
    ]);
    run(&mut model);
    assert_eq!(state(&model)[..3], ["a Pending -", "b Pending -", "c Pending -"]);
    assert_eq!(model.events[0], "WaitForFirstConsumer: waiting for first consumer to be created before binding");
    assert!(model.events.contains(&"ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found".to_owned()));
    assert_eq!(
        model.get::<PersistentVolumeClaim>("d", "b")["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"],
        "example.com/maker"
    );
    // The scheduler keeps the volume for the claim; the binding follows.
    model.merge::<PersistentVolume>("", "v", &json!({"spec": {"claimRef": {"namespace": "d", "name": "a"}}}));
    run(&mut model);
    assert_eq!(state(&model)[0], "a Bound v");
    // A default class is given to claims that name none.
    model.merge::<StorageClass>("", "made", &json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}));
    model.merge::<PersistentVolumeClaim>("d", "c", &json!({"spec": {"storageClassName": null}}));
    run(&mut model);
    assert_eq!(model.get::<PersistentVolumeClaim>("d", "c")["spec"]["storageClassName"], "made");
}
