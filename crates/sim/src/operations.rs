//! What the user of a simulated cluster may do, one row each: a weight and a function that makes the request from the seed.
//! Requests that make no sense at the moment are refused by the server, which is part of the game.

use client::Entropy;
use serde_json::{Value, json};

use crate::objects::{self as make, Place, apps, batch, cluster, core, group};

/// One request of the user.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Create(Place, Value),
    /// A strategic merge patch.
    Patch(Place, Value),
    Delete(Place, &'static str),
    /// An eviction of one of the pods of a namespace, whichever is that one of them.
    Evict(&'static str, u64),
    /// A plain deletion of one.
    DeletePod(&'static str, u64),
}

type Operation = (u64, fn(&Entropy) -> Ask);

pub(crate) const NAMESPACES: [&str; 2] = ["alpha", "beta"];

/// All operations.
pub(crate) const TABLE: &[Operation] = &[
    (6, |e| Ask::Create(apps(ns(e), "deployments", web(e)), Value::Null)),
    (8, |e| Ask::Patch(apps(ns(e), "deployments", web(e)), json!({"spec": {"replicas": e.below(8)}}))),
    (14, |e| Ask::Patch(apps(ns(e), "deployments", web(e)), image(e))),
    (3, |e| Ask::Patch(apps(ns(e), "deployments", web(e)), json!({"spec": {"paused": e.below(2) == 0}}))),
    (4, |e| Ask::Patch(apps(ns(e), "deployments", web(e)), strategy(e))),
    (3, |e| Ask::Delete(apps(ns(e), "deployments", web(e)), propagation(e))),
    (2, |e| Ask::Create(apps(ns(e), "replicasets", "plain"), Value::Null)),
    (3, |e| Ask::Patch(apps(ns(e), "replicasets", "plain"), json!({"spec": {"replicas": e.below(5)}}))),
    (1, |e| Ask::Delete(apps(ns(e), "replicasets", "plain"), propagation(e))),
    (1, |e| Ask::Create(core(ns(e), "replicationcontrollers", "old"), make::replication_controller("old", 2))),
    (1, |e| Ask::Delete(core(ns(e), "replicationcontrollers", "old"), propagation(e))),
    (5, |e| Ask::Create(apps(ns(e), "statefulsets", db(e)), Value::Null)),
    (5, |e| Ask::Patch(apps(ns(e), "statefulsets", db(e)), json!({"spec": {"replicas": e.below(5)}}))),
    (7, |e| Ask::Patch(apps(ns(e), "statefulsets", db(e)), image(e))),
    (2, |e| {
        Ask::Patch(apps(ns(e), "statefulsets", db(e)), json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": e.below(3)}}}}))
    }),
    (2, |e| Ask::Delete(apps(ns(e), "statefulsets", db(e)), propagation(e))),
    (3, |e| Ask::Create(apps(ns(e), "daemonsets", agent(e)), Value::Null)),
    (4, |e| Ask::Patch(apps(ns(e), "daemonsets", agent(e)), image(e))),
    (2, |e| Ask::Patch(apps(ns(e), "daemonsets", agent(e)), node_selector(e))),
    (1, |e| Ask::Delete(apps(ns(e), "daemonsets", agent(e)), propagation(e))),
    (8, |e| Ask::Create(batch(ns(e), "jobs", task(e)), Value::Null)),
    (3, |e| Ask::Patch(batch(ns(e), "jobs", task(e)), json!({"spec": {"suspend": e.below(2) == 0}}))),
    (3, |e| Ask::Patch(batch(ns(e), "jobs", task(e)), json!({"spec": {"parallelism": e.below(4)}}))),
    (5, |e| Ask::Delete(batch(ns(e), "jobs", task(e)), propagation(e))),
    (3, |e| Ask::Create(batch(ns(e), "cronjobs", tick(e)), Value::Null)),
    (2, |e| Ask::Patch(batch(ns(e), "cronjobs", tick(e)), json!({"spec": {"suspend": e.below(2) == 0}}))),
    (1, |e| Ask::Delete(batch(ns(e), "cronjobs", tick(e)), propagation(e))),
    (4, |e| Ask::Create(core(ns(e), "services", web(e)), Value::Null)),
    (2, |e| Ask::Patch(core(ns(e), "services", web(e)), json!({"spec": {"selector": {"app": web(e)}}}))),
    (1, |e| Ask::Delete(core(ns(e), "services", web(e)), "Background")),
    (2, |e| Ask::Create(group("policy", ns(e), "poddisruptionbudgets", web(e)), Value::Null)),
    (1, |e| Ask::Delete(group("policy", ns(e), "poddisruptionbudgets", web(e)), "Background")),
    (6, |e| Ask::Evict(ns(e), e.below(50))),
    (5, |e| Ask::DeletePod(ns(e), e.below(50))),
    (2, |e| Ask::Create(core("beta", "resourcequotas", "limits"), make::quota("limits", 3 + e.below(15)))),
    (1, |_| Ask::Delete(core("beta", "resourcequotas", "limits"), "Background")),
    (2, |e| Ask::Create(core(ns(e), "persistentvolumeclaims", "loose"), make::claim("loose"))),
    (1, |e| Ask::Delete(core(ns(e), "persistentvolumeclaims", "loose"), "Background")),
    (3, |e| Ask::Create(core(ns(e), "configmaps", "owned"), Value::Null)),
    (1, |_| Ask::Delete(cluster("namespaces", "beta"), "Background")),
    (4, |_| Ask::Create(cluster("namespaces", "beta"), make::namespace("beta"))),
    (3, |e| Ask::Patch(cluster("nodes", node(e)), json!({"spec": {"unschedulable": e.below(2) == 0}}))),
    (2, |e| Ask::Patch(cluster("nodes", node(e)), json!({"metadata": {"labels": {"zone": zone(e)}}}))),
];

/// One of the table, by weight, with what an object is made of filled in.
pub(crate) fn draw(entropy: &Entropy) -> Ask {
    let total: u64 = TABLE.iter().map(|(weight, _)| weight).sum();
    let mut at = entropy.below(total);
    for (weight, operation) in TABLE {
        if at < *weight {
            return filled(operation(entropy), entropy);
        }
        at -= weight;
    }
    Ask::DeletePod("alpha", 0)
}

fn filled(ask: Ask, e: &Entropy) -> Ask {
    let Ask::Create(place, Value::Null) = ask else { return ask };
    let (name, plural) = (place.name.as_str(), place.collection.rsplit('/').next().unwrap_or_default());
    let object = match plural {
        "deployments" => make::deployment(name, e.below(7), &version(e), ["100m", "100m", "700m"][pick(e, 3)]),
        "replicasets" => make::replica_set(name, e.below(4), "app:v1"),
        "statefulsets" => make::stateful_set(name, e.below(4), &version(e), ["OrderedReady", "Parallel"][pick(e, 2)], e.below(2) == 0),
        "daemonsets" => make::daemon_set(name, &version(e), e.below(3) == 0),
        "jobs" => make::job(name, 1 + e.below(6), 1 + e.below(3), ["work:ok", "work:flaky", "work:bad"][pick(e, 3)], e.below(2) == 0),
        "cronjobs" => make::cron_job(name, ["Allow", "Forbid", "Replace"][pick(e, 3)]),
        "services" => make::service(name, name),
        "poddisruptionbudgets" => make::budget(name, name, [json!(1), json!("50%"), json!(100)][pick(e, 3)].clone()),
        "configmaps" => make::config_map(name, None),
        _ => Value::Null,
    };
    Ask::Create(place, object)
}

fn pick(e: &Entropy, of: u64) -> usize {
    usize::try_from(e.below(of)).unwrap_or(0)
}

fn ns(e: &Entropy) -> &'static str {
    NAMESPACES[pick(e, 2)]
}

fn web(e: &Entropy) -> &'static str {
    ["web-0", "web-1", "web-2"][pick(e, 3)]
}

fn db(e: &Entropy) -> &'static str {
    ["db-a", "db-b"][pick(e, 2)]
}

fn agent(e: &Entropy) -> &'static str {
    ["agent-a", "agent-b"][pick(e, 2)]
}

fn task(e: &Entropy) -> &'static str {
    ["task-0", "task-1", "task-2"][pick(e, 3)]
}

fn tick(e: &Entropy) -> &'static str {
    ["tick-0", "tick-1"][pick(e, 2)]
}

fn node(e: &Entropy) -> &'static str {
    ["node-0", "node-1", "node-2", "node-3"][pick(e, 4)]
}

fn version(e: &Entropy) -> String {
    format!("app:v{}", e.below(4))
}

fn image(e: &Entropy) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version(e)}]}}}})
}

fn zone(e: &Entropy) -> &'static str {
    ["a", "b"][pick(e, 2)]
}

fn node_selector(e: &Entropy) -> Value {
    let zone = [json!("a"), json!("b"), Value::Null][pick(e, 3)].clone();
    json!({"spec": {"template": {"spec": {"nodeSelector": {"zone": zone}}}}})
}

fn strategy(e: &Entropy) -> Value {
    let rolling = |surge: Value, unavailable: Value| json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
    match e.below(4) {
        0 => json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        1 => rolling(json!(2), json!(0)),
        2 => rolling(json!("0%"), json!(1)),
        _ => rolling(json!("25%"), json!("25%")),
    }
}

fn propagation(e: &Entropy) -> &'static str {
    ["Background", "Background", "Foreground", "Orphan"][pick(e, 4)]
}
