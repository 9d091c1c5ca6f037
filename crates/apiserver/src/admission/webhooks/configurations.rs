//! The webhooks that are configured, read once per change and followed in the store, so that a request none of them is about
//! costs a few comparisons.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinds::expressions::{self, Scope};
use machinery::labels::{Selector, from_label_selector};
use machinery::object::str_at;
use serde_json::{Value, json};
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::conditions::Conditions;
use crate::admission::in_force::{InForce, List};
use crate::admission::matching::Rule;
use crate::error::Result;
use crate::mirror::{self, Sink};
use crate::registry::Registry;
use crate::webhook::Endpoint;

const GROUP: &str = "admissionregistration.k8s.io";
const TIMEOUT_SECONDS: u64 = 10;
/// What validation lets through.
const TIMEOUT_SECONDS_MAX: u64 = 30;

/// One webhook of a configuration.
pub struct Hook {
    /// Tells webhooks of one name apart.
    pub uid: String,
    pub name: String,
    pub configuration: String,
    pub rules: Vec<Rule>,
    pub equivalent: bool,
    pub namespaces: Selector,
    pub objects: Selector,
    pub conditions: Conditions,
    /// `failurePolicy: Ignore`.
    pub fails_open: bool,
    pub timeout: Duration,
    /// `sideEffects`; empty: not said.
    pub side_effects: String,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvocable: bool,
    pub review_versions: Vec<String>,
    pub endpoint: std::result::Result<Endpoint, String>,
}

/// All webhooks, in the order they are called: by configuration name, then as written.
pub type Hooks = InForce<Arc<Hook>>;

impl Hooks {
    /// Reads the configurations and spawns what follows them.
    pub async fn start(store: &Arc<dyn Store>, registry: &Registry, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<Self> {
        let mut hooks = Self::default();
        for (kind, list) in
            [("MutatingWebhookConfiguration", hooks.mutating.clone()), ("ValidatingWebhookConfiguration", hooks.validating.clone())]
        {
            let Some(row) = registry.kind(GROUP, kind) else { continue };
            let sink = Arc::new(Mutex::new(Configurations { by_key: BTreeMap::new(), list }));
            let prefix = format!("{}/", row.storage_prefix);
            let (reached, task) = mirror::start(store.clone(), prefix, sink, cancel.clone()).await?;
            hooks.progress.push(reached);
            tasks.spawn(task);
        }
        Ok(hooks)
    }
}

struct Configurations {
    /// Keys end with the name, so that their order is that of names.
    by_key: BTreeMap<String, Vec<Arc<Hook>>>,
    list: List<Arc<Hook>>,
}

impl Sink for Configurations {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        match object {
            Some(object) => drop(self.by_key.insert(key.to_owned(), hooks(object))),
            None => drop(self.by_key.remove(key)),
        }
    }

    fn settled(&mut self) {
        self.list.store(Arc::new(self.by_key.values().flatten().cloned().collect()));
    }
}

fn hooks(configuration: &Value) -> Vec<Arc<Hook>> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let list = configuration.get("webhooks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let own = machinery::object::name(configuration);
    let mut out = Vec::with_capacity(list.len());
    for webhook in list {
        let count = seen.entry(str_at(webhook, "name")).or_default();
        out.push(Arc::new(Hook::parse(own, webhook, *count)));
        *count += 1;
    }
    out
}

/// Most webhooks have none: then nothing is prepared for them.
fn conditions(list: &[Value]) -> Conditions {
    match list {
        [] => Conditions::default(),
        list => Conditions::compile(list, &expressions::admission(Scope { authorizer: true, ..Scope::default() })),
    }
}

impl Hook {
    fn parse(configuration: &str, webhook: &Value, count: usize) -> Self {
        let name = str_at(webhook, "name").to_owned();
        let list = |key: &str| webhook.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let everything = json!({});
        // Validation has seen them; one it let through and that does not parse selects nothing, so nothing fails.
        let selector = |key: &str| {
            let given = webhook.get(key).filter(|s| !s.is_null()).unwrap_or(&everything);
            from_label_selector(Some(given)).unwrap_or_else(|why| {
                tracing::error!(webhook = name, key, why, "a selector of a webhook does not parse");
                Selector::nothing()
            })
        };
        let seconds = webhook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_SECONDS);
        let fails_open = str_at(webhook, "failurePolicy") == "Ignore";
        Self {
            uid: format!("{configuration}/{name}/{count}"),
            configuration: configuration.to_owned(),
            rules: list("rules").iter().map(Rule::parse).collect(),
            equivalent: str_at(webhook, "matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            conditions: conditions(list("matchConditions")),
            fails_open,
            timeout: Duration::from_secs(seconds.clamp(1, TIMEOUT_SECONDS_MAX)),
            side_effects: str_at(webhook, "sideEffects").to_owned(),
            reinvocable: str_at(webhook, "reinvocationPolicy") == "IfNeeded",
            review_versions: list("admissionReviewVersions").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            endpoint: Endpoint::from_client_config(webhook.get("clientConfig").unwrap_or(&Value::Null)),
            name,
        }
    }
}
