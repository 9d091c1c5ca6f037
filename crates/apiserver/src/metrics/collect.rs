//! Gauges that are read from the server's state when somebody asks: what is stored, what the caches show, what flow control
//! has going.

use std::sync::Arc;

use super::table;
use crate::state::Api;
use crate::{attributes, features, root};

/// Brings the gauges up to date and answers the text.
pub fn text(api: &Arc<Api>) -> String {
    let metrics = &api.metrics;
    for resource in attributes::stored_kinds(&api.registry.snapshot()) {
        let cache = api.cache(resource);
        let (objects, revision) = cache.extent();
        let name = resource.group_resource().to_string();
        metrics.set(&table::STORAGE_OBJECTS, &[&name], objects as f64);
        metrics.set(&table::RESOURCE_OBJECTS, &[&resource.group, &resource.resource], objects as f64);
        metrics.set(&table::WATCH_CACHE_VERSION, &[&resource.group, &resource.resource], revision.0 as f64);
    }
    for (name, gate) in features::all() {
        let stage = if gate.stage == "GA" { "" } else { gate.stage };
        metrics.set(&table::FEATURE_ENABLED, &[name, stage], f64::from(u8::from(api.config.features.enabled(name))));
    }
    let version = root::version();
    let of = |key: &str| version.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let build = ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor", "platform"];
    metrics.set(&table::BUILD_INFO, &build.map(of), 1.0);
    api.flow.collect(metrics);
    metrics.text()
}
