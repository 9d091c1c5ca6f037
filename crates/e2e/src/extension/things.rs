//! The resource of the aggregated API: things, kept in memory.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};

const VERSION: &str = "things.example.com/v1";

static THINGS: LazyLock<Mutex<BTreeMap<String, Value>>> =
    LazyLock::new(|| Mutex::new(BTreeMap::from([("thing-1".to_owned(), thing("thing-1", 1))])));

pub fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [
        {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "watch"], "shortNames": ["th"]}]})
}

pub fn thing(name: &str, version: usize) -> Value {
    json!({"kind": "Thing", "apiVersion": VERSION, "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string()}})
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    let outcome = if code == 200 { "Success" } else { "Failure" };
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": outcome, "reason": reason, "code": code}))
}

/// `name` is empty for the collection.
pub fn answer(method: &Method, name: &str, body: Value) -> (u16, Value) {
    let mut all = THINGS.lock().unwrap_or_else(PoisonError::into_inner);
    match (method, name) {
        (&Method::GET, "") => {
            let items: Vec<&Value> = all.values().collect();
            (200, json!({"kind": "ThingList", "apiVersion": VERSION, "metadata": {"resourceVersion": "1"}, "items": items}))
        }
        (&Method::GET, name) => all.get(name).map_or_else(|| status(404, "NotFound"), |found| (200, found.clone())),
        (&Method::POST, "") => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let made = merged(body, &thing(&name, all.len() + 1));
            all.insert(name, made.clone());
            (201, made)
        }
        (&Method::DELETE, "") => {
            all.clear();
            status(200, "")
        }
        (&Method::DELETE, name) => {
            if all.remove(name).is_some() {
                status(200, "")
            } else {
                status(404, "NotFound")
            }
        }
        _ => status(405, "MethodNotAllowed"),
    }
}

fn merged(mut object: Value, over: &Value) -> Value {
    object["metadata"] = over["metadata"].clone();
    object
}
