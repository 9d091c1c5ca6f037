//! What the scheduler runs with, under the names of upstream's `KubeSchedulerConfiguration`, for people who look for a fault.
//! Nothing is read from it. Called by the binary for `/configz`.

use scheduling::plugins::PLUGINS;
use scheduling::queue;
use serde_json::{Value, json};

use crate::Config;

/// Plugins are those that filter or score; what else upstream calls plugins is part of the scheduler here.
pub fn configuration(config: &Config) -> Value {
    let enabled: Vec<Value> = PLUGINS.iter().map(|plugin| json!({"Name": plugin.name, "Weight": plugin.weight})).collect();
    json!({
        "PercentageOfNodesToScore": config.percentage_of_nodes_to_score,
        "PodInitialBackoffSeconds": queue::BACKOFF_FIRST.as_secs(),
        "PodMaxBackoffSeconds": queue::BACKOFF_MAX.as_secs(),
        "Profiles": [{"SchedulerName": config.name, "Plugins": {"MultiPoint": {"Enabled": enabled, "Disabled": null}}}],
    })
}
