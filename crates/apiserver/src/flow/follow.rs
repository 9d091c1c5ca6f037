//! Keeps flow control's configuration: makes and repairs upstream's objects, follows FlowSchemas and
//! PriorityLevelConfigurations, and says in each FlowSchema's status whether its level exists.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowcontrol::defaults::{self, Upkeep};
use flowcontrol::{FlowSchema, PriorityLevel};
use http::Method;
use machinery::object::str_at;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::error::Result;
use crate::mirror::{self, Sink};
use crate::state::Api;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const KINDS: [&str; 2] = ["PriorityLevelConfiguration", "FlowSchema"];
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Changes are looked at together.
const SETTLE: Duration = Duration::from_millis(20);
const REPAIR_EVERY: Duration = Duration::from_secs(60);

/// The objects as they are, by key.
#[derive(Default)]
struct Objects {
    all: BTreeMap<String, Value>,
    changed: Arc<Notify>,
}

impl Sink for Objects {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        match object {
            Some(object) => drop(self.all.insert(key.to_owned(), object.clone())),
            None => drop(self.all.remove(key)),
        }
    }

    fn settled(&mut self) {
        self.changed.notify_one();
    }
}

impl Objects {
    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.values().filter(move |o| str_at(o, "kind") == kind)
    }
}

/// Makes the objects, takes the configuration, and spawns what keeps both.
pub async fn start(api: &Arc<Api>, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<()> {
    let objects: Arc<Mutex<Objects>> = Arc::default();
    let mut mirrors = Vec::new();
    for kind in KINDS {
        let Some(row) = api.registry.kind(GROUP, kind) else { continue };
        let prefix = format!("{}/", row.storage_prefix);
        let (progress, task) = mirror::start(api.store.clone(), prefix.clone(), objects.clone(), cancel.clone()).await?;
        mirrors.push((prefix, progress));
        tasks.spawn(task);
    }
    settle(api, &objects).await;
    // What was just made is taken note of before anybody else writes.
    for (prefix, progress) in mirrors {
        let made = api.store.list(&prefix, store::ListOptions::default()).await?;
        progress.wait(made.items.iter().map(|item| item.mod_revision).max().unwrap_or_default()).await;
    }
    let good = settle(api, &objects).await;
    tasks.spawn(api.flow.clone().run(api.metrics.clone(), cancel.clone()));
    tasks.spawn(follow(api.clone(), objects, good, cancel.clone()));
    Ok(())
}

/// What is as it should be stays so until something changes, of which the mirrors tell; only what failed is tried again.
async fn follow(api: Arc<Api>, objects: Arc<Mutex<Objects>>, mut good: bool, cancel: CancellationToken) {
    let changed = objects.lock().unwrap_or_else(PoisonError::into_inner).changed.clone();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = changed.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(REPAIR_EVERY), if !good => {}
        }
        let round = settle(&api, &objects);
        good = tokio::select! { biased;
            () = cancel.cancelled() => return,
            good = round => good,
        };
    }
}

/// One round: use what there is, make what is missing, say what dangles. Answers whether all of it could be done.
async fn settle(api: &Arc<Api>, objects: &Mutex<Objects>) -> bool {
    let mut good = true;
    let (schemas, levels): (Vec<Value>, Vec<Value>) = {
        let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        (objects.of("FlowSchema").cloned().collect(), objects.of("PriorityLevelConfiguration").cloned().collect())
    };
    api.flow.configure(
        schemas.iter().filter_map(FlowSchema::parse).collect(),
        levels.iter().filter_map(PriorityLevel::parse).collect(),
        &api.metrics,
    );
    for (wanted, current) in [(defaults::priority_levels(), &levels), (defaults::flow_schemas(), &schemas)] {
        if let Err(error) = keep_up(api, &wanted, current).await {
            tracing::warn!(%error, "flow control's own objects could not be put right");
            good = false;
        }
    }
    for schema in &schemas {
        if let Err(error) = say_dangling(api, schema, &levels).await {
            tracing::warn!(%error, "a FlowSchema's status could not be written");
            good = false;
        }
    }
    good
}

fn name(object: &Value) -> &str {
    str_at(object, "metadata.name")
}

async fn keep_up(api: &Arc<Api>, wanted: &[Value], current: &[Value]) -> std::result::Result<(), String> {
    for object in wanted {
        match current.iter().find(|c| name(c) == name(object)) {
            None => bootstrap::write_as(api, Method::POST, object, PRODUCER, "").await?,
            Some(found) => {
                if let Upkeep::Replace(object) = defaults::upkeep(object, found) {
                    bootstrap::write_as(api, Method::PUT, &object, PRODUCER, "").await?;
                }
            }
        }
    }
    // Objects an older version suggested and this one does not, unless somebody took them over.
    let stale = |c: &&Value| {
        let annotation = c.pointer("/metadata/annotations").and_then(|a| a.get(defaults::AUTO_UPDATE));
        annotation.is_some_and(|a| a == "true") && wanted.iter().all(|w| name(w) != name(c))
    };
    for object in current.iter().filter(stale) {
        bootstrap::write_as(api, Method::DELETE, object, PRODUCER, "").await?;
    }
    Ok(())
}

async fn say_dangling(api: &Arc<Api>, schema: &Value, levels: &[Value]) -> std::result::Result<(), String> {
    let level = str_at(schema, "spec.priorityLevelConfiguration.name");
    let found = levels.iter().any(|l| name(l) == level) || defaults::MANDATORY.contains(&level);
    let (status, reason, text) =
        if found { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {text}");
    let conditions = schema.pointer("/status/conditions").and_then(Value::as_array);
    let said = conditions.into_iter().flatten().find(|c| str_at(c, "type") == "Dangling");
    if said.is_some_and(|c| str_at(c, "status") == status && str_at(c, "reason") == reason && str_at(c, "message") == message) {
        return Ok(());
    }
    let same = said.filter(|c| str_at(c, "status") == status).map(|c| str_at(c, "lastTransitionTime").to_owned());
    let time = same.unwrap_or_else(crate::identifiers::now);
    let condition = json!({"type": "Dangling", "status": status, "lastTransitionTime": time, "reason": reason, "message": message});
    let applied = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": name(schema), "uid": str_at(schema, "metadata.uid")}, "status": {"conditions": [condition]},
    });
    bootstrap::write_as(api, Method::PATCH, &applied, CONSUMER, "status").await
}
