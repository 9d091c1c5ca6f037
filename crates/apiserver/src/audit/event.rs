//! One request's audit event, from when it is known who asks to the end of the answer.

use std::net::IpAddr;

use auth::User;
use http::header::USER_AGENT;
use http::{HeaderMap, Uri};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage, Verdict};
use crate::request::RequestInfo;

const USER_AGENT_BYTES_MAX: usize = 1024;

/// What a request is known by.
pub struct Asked<'a> {
    pub id: &'a str,
    /// `None`: nobody could be made out.
    pub user: Option<&'a User>,
    pub info: &'a RequestInfo,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub client: Option<IpAddr>,
    pub received: Timestamp,
}

pub struct Event {
    pub verdict: Verdict,
    value: Map<String, Value>,
}

fn micros(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
}

fn user(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

/// The client as proxies on the way tell of it, then as the connection does.
fn sources(headers: &HeaderMap, client: Option<IpAddr>) -> Vec<String> {
    let named = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let forwarded = named("x-forwarded-for").chain(named("x-real-ip")).filter_map(|ip| ip.trim().parse::<IpAddr>().ok());
    let mut out: Vec<String> = Vec::new();
    for ip in forwarded.chain(client).map(|ip| ip.to_canonical().to_string()) {
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}

impl Event {
    pub fn new(asked: &Asked<'_>, verdict: Verdict) -> Self {
        let info = asked.info;
        let mut value = Map::new();
        let mut set = |key: &str, to: Value| drop(value.insert(key.to_owned(), to));
        set("kind", "Event".into());
        set("apiVersion", "audit.k8s.io/v1".into());
        set("level", verdict.level.name().into());
        set("auditID", asked.id.into());
        set("requestURI", asked.uri.path_and_query().map_or(asked.uri.path(), |p| p.as_str()).into());
        set("verb", info.verb.as_str().into());
        set("user", asked.user.map_or_else(|| json!({}), user));
        let sources = sources(asked.headers, asked.client);
        if !sources.is_empty() {
            set("sourceIPs", json!(sources));
        }
        let agent = asked.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if agent.len() > USER_AGENT_BYTES_MAX {
            set("userAgent", format!("{}...TRUNCATED", &agent[..agent.floor_char_boundary(USER_AGENT_BYTES_MAX)]).into());
        } else if !agent.is_empty() {
            set("userAgent", agent.into());
        }
        if info.is_resource {
            set("objectRef", reference(info));
        }
        set("requestReceivedTimestamp", micros(asked.received));
        Self { verdict, value }
    }

    pub fn wants(&self, level: Level) -> bool {
        self.verdict.level >= level
    }

    pub fn impersonated(&mut self, as_user: &User) {
        self.value.insert("impersonatedUser".to_owned(), user(as_user));
    }

    /// The body of the request, decoded; at lower levels it only tells which object it is about.
    pub fn request(&mut self, mut object: Value) {
        if let Some(reference) = self.value.get_mut("objectRef") {
            for (key, path) in [
                ("name", "metadata.name"),
                ("namespace", "metadata.namespace"),
                ("uid", "metadata.uid"),
                ("resourceVersion", "metadata.resourceVersion"),
            ] {
                let said = machinery::object::str_at(&object, path);
                if !said.is_empty() && reference.get(key).is_none() {
                    reference[key] = said.into();
                }
            }
        }
        if self.wants(Level::Request) {
            self.strip(&mut object);
            self.value.insert("requestObject".to_owned(), object);
        }
    }

    pub fn response(&mut self, mut object: Value) {
        self.strip(&mut object);
        self.value.insert("responseObject".to_owned(), object);
    }

    fn strip(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
            return;
        }
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            drop_managed_fields(item);
        }
        drop_managed_fields(object);
    }

    /// How it ended; `said` is the Status that was answered, if it was one.
    pub fn status(&mut self, code: u16, said: Option<&Value>) {
        let mut status = json!({"metadata": {}});
        for key in ["status", "message", "reason", "details"] {
            if let Some(text) = said.and_then(|s| s.get(key)) {
                status[key] = text.clone();
            }
        }
        status["code"] = code.into();
        self.value.insert("responseStatus".to_owned(), status);
    }

    pub fn annotations(&mut self, annotations: std::collections::BTreeMap<String, String>) {
        if !annotations.is_empty() {
            self.value.insert("annotations".to_owned(), json!(annotations));
        }
    }

    /// The event at a stage; `None` where the policy leaves that out.
    pub fn at(&self, stage: Stage) -> Option<Value> {
        if self.verdict.omit_stages.contains(&stage) {
            return None;
        }
        let mut value = self.value.clone();
        value.insert("stage".to_owned(), stage.name().into());
        let now = if stage == Stage::RequestReceived { value["requestReceivedTimestamp"].clone() } else { micros(Timestamp::now()) };
        value.insert("stageTimestamp".to_owned(), now);
        Some(Value::Object(value))
    }
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn reference(info: &RequestInfo) -> Value {
    let mut out = Map::new();
    for (key, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() {
            out.insert(key.to_owned(), value.as_str().into());
        }
    }
    out.into()
}

/// Leaves the bodies out of an event that is too large.
pub fn truncate(event: &mut Value) {
    if let Some(map) = event.as_object_mut() {
        map.remove("requestObject");
        map.remove("responseObject");
        let annotations = map.entry("annotations").or_insert_with(|| json!({}));
        annotations["audit.k8s.io/truncated"] = "true".into();
    }
}
