//! The end of all trouble: every component comes to rest, and everything is as asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::state::{State, controller, has_condition, is_active, is_deleting, is_finished, number, owners, text, uid_of};
use crate::user::User;

/// Nobody may change anything for so long: longer than the longest back-off of a queue, and than any look at everything.
const QUIET: Duration = Duration::from_secs(20 * 60);
/// Within which that must come about.
const PATIENCE: Duration = Duration::from_secs(3 * 60 * 60);

/// Waits until all is quiet.
pub(crate) async fn reached(user: &mut User) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        user.provide().await;
        let (quiet, last) = user.world.journal.quiet();
        if quiet >= QUIET {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let wrong = user.world.journal.look(is_as_asked).err().unwrap_or_else(|| "all is as asked for".to_owned());
            return Err(format!("no rest {} s after the last fault; last: {last}; {wrong}", PATIENCE.as_secs()));
        }
    }
}

type Check = fn(&State) -> Result<(), String>;

const CHECKS: [Check; 8] = [owned, sets, deployments, daemons, jobs, endpoints, claims, nothing_goes];

/// Whether everything is as asked for.
pub(crate) fn is_as_asked(state: &State) -> Result<(), String> {
    CHECKS.iter().try_for_each(|check| check(state))
}

/// No reference to an owner that is gone.
fn owned(state: &State) -> Result<(), String> {
    let all: BTreeSet<&str> = state.all().map(|(_, object)| uid_of(&object.tree)).collect();
    for (key, object) in state.all() {
        for owner in owners(&object.tree) {
            if !all.contains(owner["uid"].as_str().unwrap_or_default()) {
                return Err(format!("the owner of {key} is gone: {owner}"));
            }
        }
    }
    Ok(())
}

/// Every set has the pods it was asked for, says so, and has seen its newest form.
fn sets(state: &State) -> Result<(), String> {
    for prefix in ["/registry/replicasets/", "/registry/controllers/", "/registry/statefulsets/"] {
        for (key, set) in state.under(prefix) {
            let wanted = number(set, "/spec/replicas");
            let ready = state.pods_of(uid_of(set)).filter(|pod| is_active(pod) && has_condition(pod, "Ready")).count();
            let there = state.pods_of(uid_of(set)).filter(|pod| !is_finished(pod)).count();
            let told = number(set, "/status/readyReplicas");
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            if count(ready) != wanted || count(there) != wanted || told != wanted {
                return Err(format!("{key} wants {wanted} pods, has {there}, {ready} of them ready, and tells of {told}"));
            }
            if number(set, "/status/observedGeneration") != number(set, "/metadata/generation") {
                return Err(format!("{key} was not looked at since it changed"));
            }
        }
    }
    Ok(())
}

fn deployments(state: &State) -> Result<(), String> {
    for (key, one) in state.under("/registry/deployments/") {
        let wanted = number(one, "/spec/replicas");
        let paused = one.pointer("/spec/paused") == Some(&Value::Bool(true));
        let sum: i64 = state
            .under("/registry/replicasets/")
            .filter(|(_, set)| controller(set) == Some(uid_of(one)))
            .map(|(_, set)| number(set, "/spec/replicas"))
            .sum();
        let counts = ["updatedReplicas", "availableReplicas", "replicas"].map(|name| number(one, &format!("/status/{name}")));
        let settled = counts == [wanted; 3] && sum == wanted;
        if number(one, "/status/observedGeneration") != number(one, "/metadata/generation") || (!paused && !settled) {
            return Err(format!("{key} wants {wanted}, its sets {sum}; updated, available, all: {counts:?}"));
        }
    }
    Ok(())
}

/// One ready daemon on each node that it may run on.
fn daemons(state: &State) -> Result<(), String> {
    for (key, set) in state.under("/registry/daemonsets/") {
        let zone = text(set, "/spec/template/spec/nodeSelector/zone");
        let fits = |node: &Value| zone.is_empty() || text(node, "/metadata/labels/zone") == zone;
        for (_, node) in state.under("/registry/minions/").filter(|(_, node)| fits(node)) {
            let name = text(node, "/metadata/name");
            let there = state.pods_of(uid_of(set)).filter(|pod| text(pod, "/spec/nodeName") == name && has_condition(pod, "Ready")).count();
            if there != 1 {
                return Err(format!("{key} has {there} ready pods on {name}"));
            }
        }
        let wanted = state.under("/registry/minions/").filter(|(_, node)| fits(node)).count();
        let pods = state.pods_of(uid_of(set)).count();
        if pods != wanted || number(set, "/status/numberReady") != i64::try_from(wanted).unwrap_or(i64::MAX) {
            return Err(format!("{key} has {pods} pods on {wanted} nodes"));
        }
    }
    Ok(())
}

fn jobs(state: &State) -> Result<(), String> {
    for (key, job) in state.under("/registry/jobs/") {
        let suspended = job.pointer("/spec/suspend") == Some(&Value::Bool(true)) || number(job, "/spec/parallelism") == 0;
        let ended = has_condition(job, "Complete") || has_condition(job, "Failed");
        if !suspended && !ended {
            return Err(format!("{key} neither ends nor goes on: {}", job["status"]));
        }
        if let Some(waiting) =
            job.pointer("/status/uncountedTerminatedPods").filter(|waiting| waiting.as_object().is_some_and(|all| !all.is_empty()))
        {
            return Err(format!("{key} has yet to count {waiting}"));
        }
        if has_condition(job, "Complete") && number(job, "/status/succeeded") < number(job, "/spec/completions") {
            return Err(format!("{key} is complete with {} of {}", job["status"], job["spec"]["completions"]));
        }
    }
    Ok(())
}

/// The endpoints of each Service are the addresses of its pods, as ready as they are.
fn endpoints(state: &State) -> Result<(), String> {
    for (key, service) in state.under("/registry/services/specs/") {
        let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
        let app = text(service, "/spec/selector/app");
        if app.is_empty() {
            continue;
        }
        let of_app = |pod: &&Value| {
            text(pod, "/metadata/namespace") == namespace
                && text(pod, "/metadata/labels/app") == app
                && !is_finished(pod)
                && !text(pod, "/status/podIP").is_empty()
        };
        let wanted: BTreeMap<String, bool> =
            state.pods().filter(of_app).map(|pod| (text(pod, "/status/podIP").to_owned(), has_condition(pod, "Ready"))).collect();
        let mut told = BTreeMap::new();
        for (_, slice) in state.under(&format!("/registry/endpointslices/{namespace}/")) {
            if text(slice, "/metadata/labels/kubernetes.io~1service-name") != name {
                continue;
            }
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let ready = endpoint["conditions"]["ready"] == true;
                if told.insert(text(endpoint, "/addresses/0").to_owned(), ready).is_some() {
                    return Err(format!("{key} has the endpoint {endpoint} twice"));
                }
            }
        }
        if wanted != told {
            return Err(format!("{key} has pods {wanted:?} and endpoints {told:?}"));
        }
    }
    Ok(())
}

/// A volume belongs to one claim, and both say so.
fn claims(state: &State) -> Result<(), String> {
    for (key, claim) in state.under("/registry/persistentvolumeclaims/") {
        let volume = state.get(&format!("/registry/persistentvolumes/{}", text(claim, "/spec/volumeName")));
        let bound =
            volume.is_some_and(|volume| text(volume, "/spec/claimRef/uid") == uid_of(claim) && text(volume, "/status/phase") == "Bound");
        if text(claim, "/status/phase") != "Bound" || !bound {
            return Err(format!(
                "{key} is {}, its volume says {:?}",
                text(claim, "/status/phase"),
                volume.map(|volume| &volume["spec"]["claimRef"])
            ));
        }
    }
    Ok(())
}

/// Whatever is being deleted goes in the end.
fn nothing_goes(state: &State) -> Result<(), String> {
    match state.all().find(|(_, object)| is_deleting(&object.tree)) {
        Some((key, object)) => Err(format!("{key} does not go: {}", object.tree["metadata"])),
        None => Ok(()),
    }
}
