//! Whole lives of pods through `Machine`: starts, restarts, probes, init containers and sidecars, ends.

use podsync::Failure;
use podsync::probe::ProbeOutcome;
use serde_json::json;

use crate::world::{self, World};

#[test]
fn a_plain_pod_starts_and_is_ready() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle();
    assert_eq!(w.events(), ["Created Container created", "Started Container started"]);
    assert_eq!(w.steps(), ["prepare volumes", "image a", "create sandbox", "start a 0"]);
    assert_eq!((w.phase(), w.state("a").as_str()), ("Running", "running!"));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(w.condition(kind), "True", "{kind}");
    }
    assert_eq!(w.status.pod_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(w.status.host_ip.as_deref(), Some("192.168.0.1"));
    assert_eq!(w.status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(w.status.observed_generation, Some(1));
    assert_eq!(w.container("a").container_id.as_deref(), Some("skiff://c1"));
    w.pass(3600);
    assert_eq!(w.steps(), Vec::<String>::new(), "nothing more to do");
}

#[test]
fn a_failing_container_backs_off_from_ten_seconds_to_five_minutes() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle();
    w.exit_named("a", 1).settle();
    assert_eq!(w.container("a").restart_count, 1, "the first restart is at once");
    let mut waits = Vec::new();
    for _ in 0..7 {
        let died = w.now;
        w.exit_named("a", 1).settle();
        assert_eq!(w.state("a"), "waiting CrashLoopBackOff");
        let last = w.container("a").last_state.clone().unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
        let count = w.container("a").restart_count;
        while w.container("a").restart_count == count {
            w.pass(1);
        }
        waits.push(w.now - died);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    assert!(w.log.iter().any(|l| l == "event BackOff Back-off restarting failed container a in pod p_ns(u)"));
    w.pass(601);
    w.exit_named("a", 1).settle();
    assert_eq!(w.state("a"), "running!", "ten quiet minutes forget it");
}

#[test]
fn crash_loop_message() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle().exit_named("a", 1).settle().exit_named("a", 1).settle();
    let waiting = w.container("a").state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_ns(u)"));
    assert_eq!(w.phase(), "Running");
    assert_eq!(w.condition("Ready"), "False ContainersNotReady containers with unready status: [a]");
}

#[test]
fn restart_policies_decide_the_phase() {
    for (policy, code, phase, state) in [
        ("Never", 0, "Succeeded", "terminated Completed 0"),
        ("Never", 3, "Failed", "terminated Error 3"),
        ("OnFailure", 0, "Succeeded", "terminated Completed 0"),
        ("OnFailure", 3, "Running", "running!"),
        ("Always", 0, "Running", "running!"),
    ] {
        let mut w = World::new(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "img"}]}));
        w.settle().exit_named("a", code).settle();
        assert_eq!((w.phase(), w.state("a").as_str()), (phase, state), "{policy} {code}");
        if phase == "Succeeded" {
            assert_eq!(w.condition("Ready"), "False PodCompleted");
            assert_eq!(w.condition("Initialized"), "True PodCompleted");
            assert_eq!(&w.steps()[4..], ["stop sandbox", "clean up"]);
        }
        if phase == "Failed" {
            assert_eq!(w.condition("ContainersReady"), "False PodFailed");
        }
    }
}

#[test]
fn init_containers_run_in_order_and_sidecars_outlive_them() {
    let mut w = World::new(json!({
        "initContainers": [
            {"name": "i1", "image": "img"},
            {"name": "side", "image": "img", "restartPolicy": "Always", "startupProbe": {"periodSeconds": 1}},
            {"name": "i2", "image": "img"}],
        "containers": [{"name": "a", "image": "img"}, {"name": "b", "image": "img"}]}));
    w.settle();
    assert_eq!(w.steps(), ["prepare volumes", "image i1", "create sandbox", "start i1 0"]);
    assert_eq!((w.phase(), w.state("a").as_str()), ("Pending", "waiting PodInitializing"));
    assert_eq!(w.condition("Initialized"), "False ContainersNotInitialized containers with incomplete status: [i1 side i2]");
    w.probes.insert("side Startup".into(), ProbeOutcome::Failure("not yet".into()));
    w.exit_named("i1", 0).settle();
    assert_eq!(w.steps(), ["image side", "start side 0"]);
    assert_eq!(w.state("i1"), "terminated Completed 0!");
    w.probes.insert("side Startup".into(), ProbeOutcome::Success);
    w.pass(1);
    assert_eq!(w.steps(), ["image i2", "start i2 0"]);
    w.exit_named("i2", 0).settle();
    assert_eq!(w.steps(), ["image a", "image b", "start a 0", "start b 0"]);
    assert_eq!((w.phase(), w.condition("Ready").as_str()), ("Running", "True"));
    w.exit_named("side", 1).settle();
    assert_eq!(w.steps(), ["image side", "start side 1"], "a sidecar is kept alive, init containers are not run again");
    w.delete(30).settle();
    let steps = w.steps();
    assert_eq!(&steps[..3], ["stop a grace 30", "stop b grace 30", "stop side grace 30"], "{steps:?}");
}

#[test]
fn a_failing_init_container() {
    let spec = |policy| json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "img"}], "containers": [{"name": "a", "image": "img"}]});
    let mut w = World::new(spec("Never"));
    w.settle().exit_named("i", 2).settle();
    assert_eq!((w.phase(), w.state("i").as_str(), w.state("a").as_str()), ("Failed", "terminated Error 2", "waiting PodInitializing"));
    let mut w = World::new(spec("Always"));
    w.settle().exit_named("i", 2).settle().exit_named("i", 2).settle();
    assert_eq!((w.phase(), w.state("i").as_str()), ("Pending", "waiting CrashLoopBackOff"));
    w.pass(10).exit_named("i", 0).settle();
    assert_eq!((w.phase(), w.state("i").as_str(), w.container("i").restart_count), ("Running", "terminated Completed 0!", 2));
}

#[test]
fn an_image_that_cannot_be_pulled() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "nope"}]}));
    w.missing.push("a".into());
    w.settle();
    assert_eq!((w.phase(), w.state("a").as_str()), ("Pending", "waiting ErrImagePull"));
    w.pass(1);
    assert_eq!(w.state("a"), "waiting ImagePullBackOff");
    let waiting = w.container("a").state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.message.as_deref(), Some("Back-off pulling image \"nope\": ErrImagePull: no such image"));
    w.pass(70);
    assert_eq!(w.steps().iter().filter(|s| *s == "pull a").count(), 4, "at 0, 10, 30 and 70 seconds");
    w.missing.clear();
    w.pass(300);
    assert_eq!(w.state("a"), "running!");
}

#[test]
fn a_container_that_cannot_be_configured_recovers() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.broken.insert("a".into(), Failure::new("CreateContainerConfigError", "configmap \"cm\" not found"));
    w.settle();
    assert_eq!(w.state("a"), "waiting CreateContainerConfigError");
    assert!(w.events().contains(&"Failed Error: configmap \"cm\" not found"));
    w.broken.clear();
    w.pass(10);
    assert_eq!((w.state("a").as_str(), w.container("a").restart_count), ("running!", 0));
}

#[test]
fn probes_make_ready_and_restart() {
    let mut w = World::new(json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "a", "image": "img",
        "readinessProbe": {"initialDelaySeconds": 5, "periodSeconds": 1},
        "livenessProbe": {"periodSeconds": 10, "failureThreshold": 2}}]}));
    w.settle();
    assert_eq!(w.state("a"), "running");
    assert_eq!(w.condition("Ready"), "False ContainersNotReady containers with unready status: [a]");
    w.pass(4);
    assert_eq!(w.state("a"), "running");
    w.pass(1);
    assert_eq!(w.state("a"), "running!");
    w.probes.insert("a Readiness".into(), ProbeOutcome::Failure("503".into()));
    w.pass(3);
    assert_eq!((w.state("a").as_str(), w.container("a").restart_count), ("running", 0));
    w.probes.insert("a Liveness".into(), ProbeOutcome::Failure("dead".into()));
    w.log.clear();
    w.pass(20);
    assert!(w.events().contains(&"Unhealthy Liveness probe failed: dead"));
    assert!(w.events().contains(&"Killing Container a failed liveness probe, will be restarted"));
    assert!(w.log.contains(&"stop a grace 7".to_owned()));
    assert_eq!(w.container("a").restart_count, 1);
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img",
        "startupProbe": {"periodSeconds": 5, "failureThreshold": 10}, "readinessProbe": {"periodSeconds": 1}}]}));
    w.probes.insert("a Startup".into(), ProbeOutcome::Failure("no".into()));
    w.pass(12);
    assert_eq!((w.state("a").as_str(), w.container("a").started), ("running", Some(false)));
    w.probes.clear();
    w.pass(5);
    assert_eq!((w.state("a").as_str(), w.container("a").started), ("running!", Some(true)));
}

#[test]
fn hooks() {
    let mut w = World::new(json!({"containers": [
        {"name": "a", "image": "img", "lifecycle": {"postStart": {"exec": {}}, "preStop": {"exec": {}}}}, {"name": "b", "image": "img"}]}));
    w.settle();
    let steps = w.steps();
    let of = |s: &str| steps.iter().position(|x| x == s).unwrap();
    assert!(of("post-start a") < of("start b 0"), "{steps:?}");
    w.delete(20).settle();
    assert_eq!(&w.steps()[..2], ["stop a grace 20 with hook", "stop b grace 20"]);
}

#[test]
fn deletion_waits_for_the_containers_then_cleans_up_then_deletes() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.stubborn.push("a".into());
    w.settle().steps();
    w.delete(30).pass(29);
    assert_eq!(w.steps(), ["stop a grace 30"]);
    assert_eq!(w.state("a"), "running!");
    w.pass(1);
    assert_eq!(w.steps(), ["stop sandbox", "clean up", "delete pod", "remove sandbox", "finished"]);
}

#[test]
fn a_shorter_grace_hurries_a_deletion() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.stubborn.push("a".into());
    w.settle().steps();
    w.delete(300).pass(5);
    w.delete(0).settle();
    let steps = w.steps();
    assert_eq!(&steps[..3], ["stop a grace 300", "stop a grace 0", "stop sandbox"], "{steps:?}");
    assert!(w.finished);
}

#[test]
fn the_active_deadline_fails_the_pod() {
    let mut w = World::new(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a", "image": "img"}]}));
    w.pass(59);
    assert_eq!(w.phase(), "Running");
    w.pass(1);
    assert_eq!((w.phase(), w.status.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
    assert_eq!(w.state("a"), "terminated Error 143");
    assert!(!w.finished, "the object stays");
}

#[test]
fn a_lost_sandbox_is_made_again_and_counts_as_a_restart() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle().steps();
    w.observed.sandboxes[0].ready = false;
    w.exit_named("a", 137).settle();
    assert!(w.events().contains(&"SandboxChanged Pod sandbox changed, it will be killed and re-created."));
    assert_eq!(w.steps(), ["create sandbox", "image a", "start a 1"]);
    assert_eq!((w.phase(), w.container("a").restart_count), ("Running", 1));
}

#[test]
fn a_restarted_kubelet_changes_nothing() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img", "readinessProbe": {"periodSeconds": 10}}]}));
    w.settle().steps();
    assert_eq!(w.state("a"), "running!");
    let before = w.status.clone();
    w.pod.status = Some(before.clone());
    let settings = podsync::Settings { runtime: "skiff".into(), host_ips: vec!["192.168.0.1".into()] };
    w.machine = podsync::Machine::new(w.pod.clone(), settings);
    let plan = w.machine.plan(world::time(w.now));
    assert_eq!((plan.actions.len(), &plan.status), (0, &before), "before the runtime was seen nothing is decided");
    w.observe();
    let plan = w.machine.plan(world::time(w.now));
    assert_eq!(plan.status, before);
    w.settle();
    assert!(w.steps().iter().all(|s| s == "prepare volumes"));
}

#[test]
fn a_force_deleted_pod_is_killed() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle().steps();
    w.machine.handle(podsync::Event::PodGone, world::time(w.now));
    w.settle();
    assert_eq!(w.steps(), ["stop a grace 30", "stop sandbox", "clean up", "remove sandbox", "finished"]);
}

#[test]
fn eviction_fails_the_pod_with_its_reason() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle();
    let message = "The node was low on resource: memory.".to_owned();
    w.machine.handle(podsync::Event::Evict { reason: "Evicted".into(), message, grace_seconds: Some(0) }, world::time(w.now));
    w.settle();
    assert_eq!((w.phase(), w.status.reason.as_deref()), ("Failed", Some("Evicted")));
    assert!(w.steps().contains(&"stop a grace 0".to_owned()));
}

#[test]
fn a_new_image_restarts_the_container() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.settle().steps();
    w.pod.spec.as_mut().unwrap().containers[0].image = Some("img:2".into());
    w.machine.handle(podsync::Event::Pod(Box::new(w.pod.clone())), world::time(w.now));
    w.settle();
    assert!(w.events().contains(&"Killing Container a definition changed, will be restarted"));
    assert_eq!(w.steps(), ["stop a grace 30", "image a", "start a 1"]);
    assert_eq!(w.state("a"), "running!");
}

#[test]
fn not_started_before_its_hook_even_when_seen_early() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img", "lifecycle": {"postStart": {"exec": {}}}}]}));
    w.early = true;
    w.settle();
    assert_eq!(w.seen_early, ["running"], "the runtime showed it before its start was reported");
    assert_eq!(w.state("a"), "running!");
}

#[test]
fn sidecars_do_not_keep_a_finished_pod_alive() {
    let spec = |init: &str| {
        json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "img"}],
            "initContainers": [{"name": "side", "image": "img", "restartPolicy": "Always"}, {"name": init, "image": "img"}]})
    };
    let mut w = World::new(spec("i"));
    w.settle().exit_named("i", 0).settle().exit_named("a", 0).settle();
    assert_eq!((w.phase(), w.state("side").as_str()), ("Succeeded", "terminated Error 143"));
    assert!(w.steps().ends_with(&["stop side grace 30".into(), "stop sandbox".into(), "clean up".into()]));
    let mut w = World::new(spec("i"));
    w.settle().exit_named("i", 1).settle();
    assert_eq!((w.phase(), w.state("side").as_str()), ("Failed", "terminated Error 143"));
}

#[test]
fn the_image_is_fetched_once_though_the_container_is_seen_before_it_runs() {
    let mut w = World::new(json!({"containers": [{"name": "a", "image": "img"}]}));
    w.half_made = true;
    w.settle();
    assert_eq!(w.state("a"), "running!");
    assert_eq!(w.steps().iter().filter(|s| *s == "image a").count(), 1, "one pull, one pair of events");
}
