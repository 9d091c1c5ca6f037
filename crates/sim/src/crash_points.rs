//! The systematic half of the simulator: a fixed story is told once undisturbed, then again with a crash of the component
//! right after its first change, after its second, and so on; each time it must end in the same state.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::profile::Profile;
use crate::scenarios::Do;
pub use crate::scenarios::{Scenario, TABLE};
use crate::state::{State, is_secret, owners, text};
use crate::user::User;
use crate::{Error, Options, World, runtime};

/// Rest is when nobody changed anything for so long.
const REST: Duration = Duration::from_secs(45);
/// Within which rest must come.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// Before the story begins: the cluster comes up, and its controllers make what every cluster has.
const UP: Duration = Duration::from_secs(20);

/// The components that are killed.
pub const PARTS: [&str; 2] = ["manager", "scheduler"];

/// What trying all crash points of a story came to.
#[derive(Debug)]
pub struct Tried {
    pub scenario: &'static str,
    pub part: &'static str,
    /// How many changes the part makes, and so how often it was killed.
    pub crashes: u64,
    pub failures: Vec<String>,
}

/// Tells a story with a crash after every `stride`-th change of a part.
pub fn try_all(scenario: &'static Scenario, part: &'static str, stride: u64) -> Result<Tried, Error> {
    let (wanted, _) = tell(scenario, None)?;
    let mut tried = Tried { scenario: scenario.name, part, crashes: 0, failures: Vec::new() };
    let mut left = 0;
    loop {
        match tell(scenario, Some((part, left))) {
            Ok((_, false)) => return Ok(tried),
            Ok((state, true)) if state != wanted => {
                tried.failures.push(format!("killed after change {}: {}", left + 1, difference(&wanted, &state)));
            }
            Ok(_) => {}
            Err(error) => tried.failures.push(format!("killed after change {}: {error}", left + 1)),
        }
        tried.crashes += 1;
        left += stride;
    }
}

type FinalState = BTreeSet<String>;

/// The final state, and whether the crash came to be.
fn tell(scenario: &Scenario, crash: Option<(&'static str, u64)>) -> Result<(FinalState, bool), Error> {
    let options = Options::of_seed(1);
    runtime()?.block_on(async {
        let world = World::new(options, Profile::calm())?;
        let told = world.tell(story(world.clone(), scenario, crash)).await;
        let state = world.journal.look(normal);
        told.map(|report| (state, report.faults.contains_key("killed between two actions")))
    })
}

async fn story(world: World, scenario: &Scenario, crash: Option<(&'static str, u64)>) -> Result<(), String> {
    let mut user = User::new(&world);
    for _ in 0..4 {
        user.provide().await;
    }
    tokio::time::sleep(UP).await;
    if let Some((part, left)) = crash {
        world.crash_after(part, left);
    }
    for one in (scenario.story)() {
        world.journal.note(&format!("-- the user: {one:?}"));
        match one {
            Do::Make(place, object) => user.make(&place, &object).await?,
            Do::Change(place, patch) => user.change(&place, &patch).await?,
            Do::Delete(place, propagation) => user.delete(&place, propagation).await?,
            Do::Evict(namespace) => user.evict_first(namespace).await?,
            Do::Seconds(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Do::Rest => rest(&world).await?,
        }
    }
    Ok(())
}

async fn rest(world: &World) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    tokio::time::sleep(REST).await;
    loop {
        let (quiet, last) = world.journal.quiet();
        if quiet >= REST {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("no rest; last: {last}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn difference(wanted: &FinalState, state: &FinalState) -> String {
    let missing: Vec<_> = wanted.difference(state).map(|line| format!("\n      - {line}")).collect();
    let more: Vec<_> = state.difference(wanted).map(|line| format!("\n      + {line}")).collect();
    format!("the end is not the same{}{}", missing.concat(), more.concat())
}

/// Fields that are by chance, or of the moment.
const CHANCE: [&str; 30] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "nodeName",
    "podIP",
    "podIPs",
    "clusterIP",
    "clusterIPs",
    "startTime",
    "completionTime",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastHeartbeatTime",
    "lastScheduleTime",
    "lastSuccessfulTime",
    "volumeName",
    "disruptedPods",
    "addresses",
    "annotations",
    "hostIP",
    "targetRef",
    "claimRef",
    "volumes",
    "volumeMounts",
    "lastProbeTime",
    "controller-uid",
];

/// What is there, without what is by chance: one line per object, numbered where several are the same.
fn normal(state: &State) -> FinalState {
    let mut lines = FinalState::new();
    for (key, object) in state.all() {
        let left_out = ["events/", "leases/", "masterleases/", "minions/", "ipaddresses/", "persistentvolumes/", "csinodes/"];
        if is_secret(key) || left_out.iter().any(|kind| key.strip_prefix("/registry/").is_some_and(|rest| rest.starts_with(kind))) {
            continue;
        }
        let mut tree = object.tree.clone();
        let owner = owners(&tree).first().map(|owner| text(owner, "/name").to_owned());
        if owner.is_some() {
            // Of what is made for an owner, names may have a random end.
            let name = text(&tree, "/metadata/name").to_owned();
            tree["metadata"]["name"] = json!(stem(&name));
        }
        simplify(&mut tree);
        let place = key.rsplit_once('/').map_or(key, |(place, _)| place);
        let line = format!("{place} {tree}");
        let copies = (1..).find(|number| !lines.contains(&format!("{line} ({number})"))).unwrap_or(0);
        lines.insert(format!("{line} ({copies})"));
    }
    lines
}

/// A name without its random end: five letters after the last dash, or none.
fn stem(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((stem, end)) if end.len() == 5 => stem,
        _ => name,
    }
}

fn simplify(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !CHANCE.contains(&name.as_str()) && !name.ends_with("/controller-uid"));
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}
