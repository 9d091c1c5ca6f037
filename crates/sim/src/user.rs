//! The user of a simulated cluster: makes and changes things while much fails, then leaves them alone and looks whether
//! everything becomes as asked for, and quiet; takes all away, and looks whether it goes.

use std::time::Duration;

use http::Request;
use k8s_openapi::serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::objects::{Place, cluster, core};
use crate::operations::{Ask, NAMESPACES, draw};
use crate::state::{State, is_deleting, number, text};
use crate::{World, fixpoint, objects};

/// Before the first fault.
const CALM: Duration = Duration::from_secs(60);
/// Free volumes that there should always be.
const FREE_VOLUMES: usize = 4;

/// What a node has, and a pod that is large beside it.
const NODE_MILLIS: i64 = 4000;
const LARGE_MILLIS: i64 = 500;
/// The most that a Deployment may have beyond what it wants.
const SURGE: i64 = 2;
/// What is left of a Deployment that is too large.
const FEW: i64 = 2;

pub(crate) struct User {
    pub world: World,
    client: client::Client,
    entropy: client::Entropy,
    volumes: usize,
}

pub(crate) async fn story(world: World) -> Result<(), String> {
    let mut user = User::new(&world);
    for namespace in NAMESPACES {
        user.make(&cluster("namespaces", namespace), &objects::namespace(namespace)).await?;
    }
    user.busy(CALM).await;
    world.journal.note("trouble begins");
    world.faults.turn(true);
    user.busy(Duration::from_secs(60 * world.options.minutes)).await;
    world.faults.turn(false);
    world.hosts.heal();
    world.journal.note("trouble ends");
    user.leave_alone().await?;
    fixpoint::reached(&mut user).await?;
    world.journal.look(fixpoint::is_as_asked)?;
    user.go().await
}

impl User {
    pub fn new(world: &World) -> Self {
        let entropy = client::Entropy::from_seed(world.options.seed ^ 0x0005_e125);
        Self { world: world.clone(), client: world.sure_client(), entropy, volumes: 0 }
    }

    /// Asks for this and that for a while.
    async fn busy(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(self.entropy.below(16_000))).await;
            self.provide().await;
            let ask = draw(&self.entropy);
            let told = describe(&ask);
            let answer = self.put(ask).await;
            let outcome = answer.map_or_else(|error| error, |()| "done".to_owned());
            self.world.journal.note(&format!("-- the user: {told}: {outcome}"));
        }
    }

    async fn put(&self, ask: Ask) -> Result<(), String> {
        match ask {
            Ask::Create(place, mut object) => {
                if place.name == "owned" {
                    object["metadata"]["ownerReferences"] = json!(self.some_owner(&place));
                }
                self.ask("POST", &place.collection, Some(&object)).await.map(drop)
            }
            Ask::Patch(place, patch) => self.ask("PATCH", &place.path(), Some(&patch)).await.map(drop),
            Ask::Delete(place, propagation) => self.delete(&place, propagation).await,
            Ask::Evict(namespace, number) => {
                let Some(name) = self.pod(namespace, number) else { return Err("no pod".to_owned()) };
                self.evict(namespace, &name).await
            }
            Ask::DeletePod(namespace, number) => match self.pod(namespace, number) {
                Some(name) => self.delete(&core(namespace, "pods", &name), "Background").await,
                None => Err("no pod".to_owned()),
            },
        }
    }

    async fn evict(&self, namespace: &str, name: &str) -> Result<(), String> {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
        self.ask("POST", &path, Some(&eviction)).await.map(drop)
    }

    pub async fn evict_first(&self, namespace: &str) -> Result<(), String> {
        match self.pod(namespace, 0) {
            Some(name) => self.evict(namespace, &name).await,
            None => Err("no pod".to_owned()),
        }
    }

    pub async fn delete(&self, place: &Place, propagation: &str) -> Result<(), String> {
        self.ask("DELETE", &place.path(), Some(&json!({"propagationPolicy": propagation}))).await.map(drop)
    }

    /// Makes an object, again and again until it is there.
    pub async fn make(&self, place: &Place, object: &Value) -> Result<(), String> {
        self.insist("POST", &place.collection, object).await
    }

    pub async fn change(&self, place: &Place, patch: &Value) -> Result<(), String> {
        self.insist("PATCH", &place.path(), patch).await
    }

    async fn insist(&self, method: &str, path: &str, body: &Value) -> Result<(), String> {
        for _ in 0..120 {
            match self.ask(method, path, Some(body)).await {
                Err(error) if !error.starts_with("409") => {
                    self.world.journal.note(&format!("-- the user tries {method} {path} again: {error}"));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => return Ok(()),
            }
        }
        Err(format!("{method} {path} is refused for two minutes"))
    }

    /// One request; errors begin with the code.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let kind = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
        let answer = self.client.request::<Value>(request.map_err(|error| error.to_string())?).await;
        answer.map_err(|error| match error {
            kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
            other => other.to_string(),
        })
    }

    fn pod(&self, namespace: &str, number: u64) -> Option<String> {
        let prefix = format!("/registry/pods/{namespace}/");
        let names = |state: &State| state.under(&prefix).map(|(_, pod)| text(pod, "/metadata/name").to_owned()).collect::<Vec<_>>();
        let mut names = self.world.journal.look(names);
        let at = usize::try_from(number).unwrap_or(0) % names.len().max(1);
        (!names.is_empty()).then(|| names.swap_remove(at))
    }

    /// References to a Deployment of the namespace, if it has one.
    fn some_owner(&self, place: &Place) -> Vec<Value> {
        let namespace = place.collection.split('/').nth(4).unwrap_or_default();
        let prefix = format!("/registry/deployments/{namespace}/");
        let refer = |(_, owner): (&str, &Value)| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": text(owner, "/metadata/name"), "uid": text(owner, "/metadata/uid"), "blockOwnerDeletion": true});
        self.world.journal.look(|state| state.under(&prefix).take(1).map(refer).collect())
    }

    /// Makes volumes, as a provisioner would.
    pub async fn provide(&mut self) {
        let free = |state: &State| {
            state.under("/registry/persistentvolumes/").filter(|(_, volume)| text(volume, "/status/phase") == "Available").count()
        };
        if self.world.journal.look(free) < FREE_VOLUMES {
            self.volumes += 1;
            let name = format!("volume-{}", self.volumes);
            if let Err(error) = self.ask("POST", "/api/v1/persistentvolumes", Some(&objects::volume(&name))).await {
                self.world.journal.note(&format!("-- no volume: {error}"));
            }
        }
    }

    /// Takes away what keeps things from being as asked for, and what never rests.
    async fn leave_alone(&self) -> Result<(), String> {
        for number in 0..self.world.options.nodes {
            let node = cluster("nodes", &format!("node-{number}"));
            // One that is still to come back has no marks.
            for _ in 0..60 {
                match self.ask("PATCH", &node.path(), Some(&json!({"spec": {"unschedulable": null}}))).await {
                    Ok(_) => break,
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        }
        for namespace in NAMESPACES {
            for name in ["tick-0", "tick-1"] {
                let place = objects::batch(namespace, "cronjobs", name);
                self.gone(&place, "Background").await?;
            }
            self.gone(&core(namespace, "resourcequotas", "limits"), "Background").await?;
        }
        for place in self.world.journal.look(|state| too_large(state, self.world.options.nodes)) {
            self.world.journal.note(&format!("-- the user takes back some of {}, for which there is no room", place.path()));
            self.change(&place, &json!({"spec": {"replicas": FEW}})).await?;
        }
        Ok(())
    }

    /// Deletes until it is said that there is nothing.
    async fn gone(&self, place: &Place, propagation: &str) -> Result<(), String> {
        for _ in 0..600 {
            match self.delete(place, propagation).await {
                Err(error) if error.starts_with("404") => return Ok(()),
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        Err(format!("{} does not go", place.path()))
    }

    /// Deletes all namespaces; everything in them goes.
    async fn go(&mut self) -> Result<(), String> {
        self.world.journal.note("-- the user deletes everything");
        for namespace in NAMESPACES {
            self.gone(&cluster("namespaces", namespace), "Background").await?;
        }
        fixpoint::reached(self).await?;
        self.world.journal.look(|state| {
            let left = state.all().find(|(key, _)| NAMESPACES.iter().any(|name| key.contains(&format!("/{name}/"))));
            let going = state.all().find(|(_, object)| is_deleting(&object.tree));
            match left.or(going) {
                Some((key, _)) => Err(format!("{key} is left of namespaces that are gone")),
                None => Ok(()),
            }
        })
    }
}

/// The Deployments of large pods, if all together, while they roll, do not surely fit on the nodes: what is asked for
/// must be possible.
fn too_large(state: &State, nodes: usize) -> Vec<Place> {
    let room = i64::try_from(nodes).unwrap_or(0) * NODE_MILLIS / 4 * 3;
    let cpu = |one: &Value| text(one, "/spec/template/spec/containers/0/resources/requests/cpu").trim_end_matches('m').parse().unwrap_or(0);
    let all: Vec<(&Value, i64)> = state.under("/registry/deployments/").map(|(_, one)| (one, cpu(one))).collect();
    let asked: i64 = all.iter().map(|(one, cpu)| (number(one, "/spec/replicas") + SURGE) * cpu).sum();
    let large =
        |(one, cpu): &&(&Value, i64)| asked > room && *cpu >= LARGE_MILLIS && number(one, "/spec/replicas") > FEW && !is_deleting(one);
    let place = |(one, _): &(&Value, i64)| objects::apps(text(one, "/metadata/namespace"), "deployments", text(one, "/metadata/name"));
    all.iter().filter(large).map(place).collect()
}

fn describe(ask: &Ask) -> String {
    match ask {
        Ask::Create(place, object) => format!("make {} {object}", place.path()),
        Ask::Patch(place, patch) => format!("patch {} {patch}", place.path()),
        Ask::Delete(place, propagation) => format!("delete {} ({propagation})", place.path()),
        Ask::Evict(namespace, number) => format!("evict pod {number} of {namespace}"),
        Ask::DeletePod(namespace, number) => format!("delete pod {number} of {namespace}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_end_no_more_is_asked_for_than_there_is_room_for() {
        let mut state = State::default();
        let mut ask = |revision: u64, name: &str, replicas: u64, cpu: &str| {
            let mut one = objects::deployment(name, replicas, "app:v1", cpu);
            one["metadata"]["namespace"] = json!("beta");
            state.apply(revision, &format!("/registry/deployments/beta/{name}"), Some(&one.to_string().into_bytes().into()));
            too_large(&state, 4).iter().map(Place::path).collect::<Vec<_>>()
        };
        assert!(ask(1, "web-0", 6, "700m").is_empty());
        assert!(ask(2, "web-1", 7, "100m").is_empty());
        let path = |name: &str| format!("/apis/apps/v1/namespaces/beta/deployments/{name}");
        assert_eq!(ask(3, "web-2", 7, "700m"), [path("web-0"), path("web-2")]);
        assert!(ask(4, "web-2", 2, "700m").is_empty());
    }
}
