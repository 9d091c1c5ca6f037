//! Laws of `Machine` under random histories: it reaches a fixpoint, never runs two instances of a container, is
//! idempotent, and a deleted pod ends within its grace and leaves nothing.

use podsync::RunState;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{self, World};

#[derive(Clone, Debug)]
enum Step {
    Exit(&'static str, i32),
    Pass(i64),
    LoseSandbox,
    Missing(bool),
    Unhealthy(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (prop_oneof![Just("i"), Just("side"), Just("a"), Just("b")], 0..3i32).prop_map(|(n, c)| Step::Exit(n, c)),
        (0..400i64).prop_map(Step::Pass),
        Just(Step::LoseSandbox),
        any::<bool>().prop_map(Step::Missing),
        any::<bool>().prop_map(Step::Unhealthy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_clean(policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")], steps in prop::collection::vec(step(), 0..12), grace in 0..40i64) {
        let mut w = World::new(json!({"restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "img"}, {"name": "side", "image": "img", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "image": "img", "livenessProbe": {"periodSeconds": 5}}, {"name": "b", "image": "img"}]}));
        w.stubborn.push("b".into());
        w.settle();
        for s in steps {
            match s {
                Step::Exit(name, code) => {
                    let id = w.observed.newest(name).filter(|c| c.state == RunState::Running).map(|c| c.id.clone());
                    if let Some(id) = id { w.exit(&id, code, ""); }
                }
                Step::Pass(s) => { w.pass(s); }
                Step::LoseSandbox => {
                    w.observed.sandboxes.iter_mut().for_each(|s| s.ready = false);
                    let all: Vec<_> = w.observed.containers.iter().map(|c| c.id.clone()).collect();
                    all.iter().for_each(|id| w.exit(id, 137, ""));
                }
                Step::Missing(on) => w.missing = if on { vec!["a".into()] } else { Vec::new() },
                Step::Unhealthy(on) => {
                    w.probes.clear();
                    if on { w.probes.insert("a Liveness".into(), podsync::probe::ProbeOutcome::Failure("x".into())); }
                }
            }
            w.settle();
            let before = w.status.clone();
            let plan = w.machine.plan(world::time(w.now));
            prop_assert!(plan.actions.is_empty(), "a second look changes nothing");
            prop_assert_eq!(&plan.status, &before);
            prop_assert!(w.observed.containers.len() <= 12);
        }
        w.delete(grace).pass(grace + 2);
        prop_assert!(w.finished, "{:?}", w.log.iter().rev().take(10).collect::<Vec<_>>());
        prop_assert!(w.observed.sandboxes.is_empty() && w.observed.containers.is_empty());
        prop_assert!(w.status.container_statuses.iter().flatten().all(|s| s.state.as_ref().unwrap().running.is_none()));
    }
}
