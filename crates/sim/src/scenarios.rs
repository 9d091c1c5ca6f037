//! Fixed stories for [`crash_points`](crate::crash_points): one per controller, as data.

use serde_json::{Value, json};

use crate::objects::{self as make, Place, apps, batch, cluster, core, group};

/// What the user does next.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    Make(Place, Value),
    Change(Place, Value),
    Delete(Place, &'static str),
    Evict(&'static str),
    /// Waits until nobody has changed anything for a while.
    Rest,
    Seconds(u64),
}

pub struct Scenario {
    pub name: &'static str,
    pub(crate) story: fn() -> Vec<Do>,
}

const NS: &str = "alpha";

/// All of them.
pub const TABLE: &[Scenario] = &[
    Scenario { name: "deployment", story: deployment },
    Scenario { name: "deployment-recreate", story: recreate },
    Scenario { name: "deployment-orphaned", story: orphaned },
    Scenario { name: "replicaset-scaled", story: scaled },
    Scenario { name: "statefulset", story: stateful },
    Scenario { name: "daemonset", story: daemons },
    Scenario { name: "job", story: job },
    Scenario { name: "job-indexed-suspended", story: suspended },
    Scenario { name: "job-fails", story: fails },
    Scenario { name: "cronjob", story: by_the_clock },
    Scenario { name: "endpoints", story: endpoints },
    Scenario { name: "disruption", story: disruption },
    Scenario { name: "quota", story: quota },
    Scenario { name: "foreground", story: foreground },
    Scenario { name: "claims", story: claims },
    Scenario { name: "node-lost", story: node_lost },
    Scenario { name: "namespace", story: namespace },
];

fn begin(rest: Vec<Do>) -> Vec<Do> {
    let mut story = vec![Do::Make(cluster("namespaces", NS), make::namespace(NS))];
    story.extend(rest);
    story.push(Do::Rest);
    story
}

fn image(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version}]}}}})
}

fn replicas(count: u64) -> Value {
    json!({"spec": {"replicas": count}})
}

fn web() -> Place {
    apps(NS, "deployments", "web")
}

fn deployment() -> Vec<Do> {
    begin(vec![
        Do::Make(web(), make::deployment("web", 3, "app:v1", "50m")),
        Do::Rest,
        Do::Change(web(), image("app:v2")),
        Do::Seconds(4),
        Do::Change(web(), image("app:v3")),
        Do::Rest,
        Do::Change(web(), json!({"spec": {"replicas": 5, "template": {"spec": {"containers": [{"name": "c", "image": "app:v1"}]}}}})),
    ])
}

fn recreate() -> Vec<Do> {
    let mut object = make::deployment("web", 3, "app:v1", "50m");
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    begin(vec![Do::Make(web(), object), Do::Rest, Do::Change(web(), image("app:v2"))])
}

fn orphaned() -> Vec<Do> {
    let object = make::deployment("web", 2, "app:v1", "50m");
    begin(vec![Do::Make(web(), object.clone()), Do::Rest, Do::Delete(web(), "Orphan"), Do::Rest, Do::Make(web(), object)])
}

fn scaled() -> Vec<Do> {
    let set = apps(NS, "replicasets", "plain");
    begin(vec![
        Do::Make(set.clone(), make::replica_set("plain", 4, "app:v1")),
        Do::Rest,
        Do::Change(set.clone(), replicas(1)),
        Do::Rest,
        Do::Change(set, replicas(3)),
    ])
}

fn stateful() -> Vec<Do> {
    let set = apps(NS, "statefulsets", "db");
    begin(vec![
        Do::Make(set.clone(), make::stateful_set("db", 3, "app:v1", "OrderedReady", true)),
        Do::Rest,
        Do::Change(set.clone(), image("app:v2")),
        Do::Rest,
        Do::Change(set, replicas(1)),
    ])
}

fn daemons() -> Vec<Do> {
    let set = apps(NS, "daemonsets", "agent");
    begin(vec![Do::Make(set.clone(), make::daemon_set("agent", "app:v1", false)), Do::Rest, Do::Change(set, image("app:v2"))])
}

fn job() -> Vec<Do> {
    let place = batch(NS, "jobs", "task");
    begin(vec![Do::Make(place, make::job("task", 4, 2, "work:ok", false))])
}

/// Suspended while its first pods run, which is where it rests: their work takes longer than any restart of the manager, so that
/// none ends before the suspension in one telling and after it in another.
fn suspended() -> Vec<Do> {
    let place = batch(NS, "jobs", "task");
    begin(vec![
        Do::Make(place.clone(), make::job("task", 4, 2, "work:slow", true)),
        Do::Rest,
        Do::Change(place.clone(), json!({"spec": {"suspend": true}})),
        Do::Rest,
        Do::Change(place, json!({"spec": {"suspend": false}})),
        Do::Seconds(900),
    ])
}

fn fails() -> Vec<Do> {
    let place = batch(NS, "jobs", "task");
    begin(vec![Do::Make(place.clone(), make::job("task", 2, 1, "work:bad", false)), Do::Rest, Do::Delete(place, "Background")])
}

fn by_the_clock() -> Vec<Do> {
    let place = batch(NS, "cronjobs", "tick");
    begin(vec![
        Do::Make(place.clone(), make::cron_job("tick", "Forbid")),
        Do::Seconds(200),
        Do::Change(place, json!({"spec": {"suspend": true}})),
        Do::Seconds(60),
    ])
}

fn endpoints() -> Vec<Do> {
    let service = core(NS, "services", "web");
    begin(vec![
        Do::Make(web(), make::deployment("web", 3, "app:v1", "50m")),
        Do::Make(service.clone(), make::service("web", "web")),
        Do::Rest,
        Do::Change(web(), replicas(1)),
        Do::Rest,
        Do::Delete(service, "Background"),
    ])
}

fn disruption() -> Vec<Do> {
    begin(vec![
        Do::Make(web(), make::deployment("web", 3, "app:v1", "50m")),
        Do::Make(group("policy", NS, "poddisruptionbudgets", "web"), make::budget("web", "web", json!(2))),
        Do::Rest,
        Do::Evict(NS),
    ])
}

fn quota() -> Vec<Do> {
    let limits = core(NS, "resourcequotas", "limits");
    begin(vec![
        Do::Make(limits.clone(), make::quota("limits", 2)),
        Do::Rest,
        Do::Make(apps(NS, "replicasets", "plain"), make::replica_set("plain", 3, "app:v1")),
        Do::Seconds(60),
        Do::Change(limits, json!({"spec": {"hard": {"pods": "10"}}})),
        Do::Seconds(1200),
    ])
}

fn foreground() -> Vec<Do> {
    begin(vec![Do::Make(web(), make::deployment("web", 3, "app:v1", "50m")), Do::Rest, Do::Delete(web(), "Foreground")])
}

fn claims() -> Vec<Do> {
    let (one, two) = (core(NS, "persistentvolumeclaims", "one"), core(NS, "persistentvolumeclaims", "two"));
    begin(vec![Do::Make(one.clone(), make::claim("one")), Do::Make(two, make::claim("two")), Do::Rest, Do::Delete(one, "Background")])
}

fn node_lost() -> Vec<Do> {
    begin(vec![
        Do::Make(web(), make::deployment("web", 4, "app:v1", "50m")),
        Do::Rest,
        Do::Delete(cluster("nodes", "node-1"), "Background"),
    ])
}

fn namespace() -> Vec<Do> {
    begin(vec![
        Do::Make(web(), make::deployment("web", 2, "app:v1", "50m")),
        Do::Make(core(NS, "services", "web"), make::service("web", "web")),
        Do::Make(apps(NS, "statefulsets", "db"), make::stateful_set("db", 1, "app:v1", "Parallel", true)),
        Do::Rest,
        Do::Delete(cluster("namespaces", NS), "Background"),
    ])
}
