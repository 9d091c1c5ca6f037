//! What the scheduler does about events, without a server: volumes and devices come before bindings.

use std::sync::Arc;

use client::{Change, ObjectKey};
use kube::Resource;
use serde_json::{Value, json};

use super::State;
use crate::execute::{Effect, Outcome};
use crate::{Config, Event};

fn change<K: Resource + serde::de::DeserializeOwned>(object: Value) -> Change<K> {
    let object: K = serde_json::from_value(object).unwrap();
    Change { key: ObjectKey::of(&object), old: None, new: Some(Arc::new(object)) }
}

fn state() -> State {
    let mut state = State::new(Config::default());
    let offers = json!({ "cpu": "4", "memory": "8Gi", "pods": "10" });
    state.handle(Event::Node(change(json!({ "metadata": { "name": "a" }, "status": { "allocatable": offers } }))));
    state
}

fn pod(name: &str, spec: Value) -> Event {
    let mut spec = spec;
    spec["containers"] = json!([{ "name": "c" }]);
    Event::Pod(change(json!({ "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}") }, "spec": spec })))
}

fn claim(bound: bool) -> Event {
    let mut claim = json!({
        "metadata": { "name": "data", "namespace": "default", "uid": "c" },
        "spec": { "storageClassName": "csi", "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    if bound {
        claim["metadata"]["annotations"] = json!({ "pv.kubernetes.io/bind-completed": "yes" });
        claim["spec"]["volumeName"] = json!("v");
    }
    Event::VolumeClaim(change(claim))
}

#[test]
fn a_pod_is_bound_when_its_volume_has_come() {
    let mut state = state();
    let class = json!({ "metadata": { "name": "csi" }, "provisioner": "csi.a", "volumeBindingMode": "WaitForFirstConsumer" });
    state.handle(Event::StorageClass(change(class)));
    state.handle(claim(false));
    state.handle(pod("p", json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] })));
    let Some(Effect::Volumes { pod, node, writes, devices }) = state.next_effect() else { panic!("volumes first") };
    assert_eq!((writes.bind.len(), writes.provision.len()), (0, 1));
    assert!(state.next_effect().is_none());
    state.handle(Event::Done(Outcome::Asked { pod, node, claims: vec!["default/data".to_owned()], devices }));
    assert!(state.next_effect().is_none(), "not bound yet");
    state.handle(claim(true));
    assert!(state.next_effect().is_none(), "the volume is not known yet");
    let volume = json!({ "metadata": { "name": "v" }, "spec": { "capacity": { "storage": "1Gi" }, "storageClassName": "csi" } });
    state.handle(Event::Volume(change(volume)));
    assert!(matches!(state.next_effect(), Some(Effect::Bind { node, .. }) if node == "a"));
    assert!(state.cluster.storage.assumed_claims.contains_key("default/data"));
    state.handle(pod_on("p"));
    assert!(state.cluster.storage.assumed_claims.is_empty());
}

fn pod_on(name: &str) -> Event {
    pod(name, json!({ "nodeName": "a" }))
}

fn device_claim(name: &str) -> Event {
    let requests = json!([{ "name": "r", "exactly": { "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1 } }]);
    Event::Claim(change(json!({
        "metadata": { "name": name, "namespace": "default" }, "spec": { "devices": { "requests": requests } },
    })))
}

fn wants(claim: &str) -> Value {
    json!({ "resourceClaims": [{ "name": "r", "resourceClaimName": claim }] })
}

#[test]
fn a_device_is_given_away_once_and_a_missing_claim_holds_its_pod_back() {
    let mut state = state();
    state.handle(Event::DeviceClass(change(json!({ "metadata": { "name": "gpu" }, "spec": {} }))));
    let pool = json!({ "name": "a", "generation": 1, "resourceSliceCount": 1 });
    let slice = json!({ "driver": "d", "nodeName": "a", "pool": pool, "devices": [{ "name": "d0" }] });
    state.handle(Event::Slice(change(json!({ "metadata": { "name": "s" }, "spec": slice }))));
    state.handle(pod("p", wants("one")));
    assert!(state.next_effect().is_none(), "held back");
    state.handle(device_claim("one"));
    let Some(Effect::Bind { pod: bound, devices, .. }) = state.next_effect() else { panic!("a binding") };
    assert_eq!(devices.claims.len(), 1);
    // The allocation is not seen yet; the device is gone all the same.
    state.handle(device_claim("two"));
    state.handle(pod("q", wants("two")));
    let Some(Effect::Tell { message, .. }) = state.next_effect() else { panic!("no device is left") };
    assert!(message.starts_with("0/1 nodes are available: 1 cannot allocate all claims."), "{message}");
    // The binding fails: the device is free again.
    state.handle(Event::Done(Outcome::BindFailed { key: bound.key(), uid: bound.uid().to_owned() }));
    assert!(state.cluster.devices.assumed.is_empty());
}

#[test]
fn attempts_and_queues_are_counted() {
    let registry = Arc::new(client::Registry::new(&[crate::metrics::ALL]));
    let mut state = State::new(Config { metrics: Some(registry.clone()), ..Config::default() });
    let has = |line: &str| {
        let text = registry.text();
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    };
    state.handle(pod("p", json!({})));
    state.handle(pod("gated", json!({ "schedulingGates": [{ "name": "example.com/g" }] })));
    state.tell_sizes();
    has("scheduler_pending_pods{queue=\"active\"} 1");
    has("scheduler_pending_pods{queue=\"gated\"} 1");
    assert!(matches!(state.next_effect(), Some(Effect::Tell { .. })), "there is no node");
    has("scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"unschedulable\"} 1");
    has("scheduler_preemption_attempts_total 1");
    let offers = json!({ "cpu": "4", "memory": "8Gi", "pods": "10" });
    state.handle(Event::Node(change(json!({ "metadata": { "name": "a" }, "status": { "allocatable": offers } }))));
    state.handle(pod("q", json!({})));
    let Some(Effect::Bind { pod, .. }) = state.next_effect() else { panic!("a binding") };
    has("scheduler_scheduling_algorithm_duration_seconds_count 2");
    state.handle(Event::Done(Outcome::Bound { key: pod.key() }));
    state.handle(pod_on("q"));
    has("scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 1");
    has("scheduler_pod_scheduling_attempts_count 1");
    has("scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"1\"} 1");
}

#[test]
fn gated_pods_and_those_of_others_are_left_alone() {
    let mut state = state();
    state.handle(pod("gated", json!({ "schedulingGates": [{ "name": "example.com/g" }] })));
    state.handle(pod("other", json!({ "schedulerName": "other" })));
    assert!(state.next_effect().is_none());
    state.handle(pod("gated", json!({})));
    assert!(matches!(state.next_effect(), Some(Effect::Bind { pod, .. }) if pod.name() == "gated"));
}

#[test]
fn a_node_that_comes_back_has_its_pods_yet() {
    let mut state = state();
    let big = |name: &str, node: Value| {
        let spec = json!({ "nodeName": node, "containers": [{ "name": "c", "resources": { "requests": { "cpu": "3" } } }] });
        Event::Pod(change(json!({ "metadata": { "name": name, "namespace": "default", "uid": name }, "spec": spec })))
    };
    state.handle(big("bound", json!("a")));
    let node = state.cluster.nodes["a"].node.clone();
    state.handle(big("assumed", Value::Null));
    let key = ObjectKey::of(&*node);
    state.handle(Event::Node(Change { key: key.clone(), old: Some(node.clone()), new: None }));
    state.handle(Event::Node(Change { key, old: None, new: Some(node) }));
    assert!(matches!(state.next_effect(), Some(Effect::Tell { .. })), "there is room for one only");
}

#[test]
fn a_clock_that_is_set_back_holds_no_pod() {
    let clock = client::Clock::starting_at("2026-01-01T01:00:00Z".parse().unwrap());
    let mut state = State::new(Config { clock: clock.clone(), ..Config::default() });
    state.handle(pod("p", json!({})));
    assert!(matches!(state.next_effect(), Some(Effect::Tell { .. })), "there is no node");
    clock.set_skew_ms(-3_600_000);
    state.handle(Event::Node(change(json!({ "metadata": { "name": "a" }, "status": { "allocatable": { "cpu": "4", "pods": "10" } } }))));
    assert!(state.wait().unwrap() < std::time::Duration::from_secs(20));
}
