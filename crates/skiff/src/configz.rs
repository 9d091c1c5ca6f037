//! `/configz` of controllers and scheduler: what they run with, under the keys and names of upstream's internal configuration.
//! Only what has an effect here is in it. Called by the roles and by the daemon.

use std::time::Duration;

use client::Election;
use serde_json::{Value, json};

/// As Go prints a duration of whole seconds: `1h0m0s`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn election(election: Option<&Election>) -> Value {
    let Some(e) = election else { return json!({"LeaderElect": false}) };
    let text = |d: Duration| duration(d.as_secs());
    json!({
        "LeaderElect": true, "LeaseDuration": text(e.lease_duration), "RenewDeadline": text(e.renew_deadline),
        "RetryPeriod": text(e.retry_period), "ResourceLock": "leases", "ResourceName": e.name, "ResourceNamespace": e.namespace,
    })
}

pub fn controllers(config: &controller_runtime::Config) -> Value {
    let own = &config.controllers;
    let switched: Vec<String> = ["*".to_owned()].into_iter().chain(config.disabled.iter().map(|name| format!("-{name}"))).collect();
    let seconds = |n: i64| duration(u64::try_from(n).unwrap_or(0));
    json!({"kubecontrollermanager.config.k8s.io": {
        "Generic": {"LeaderElection": election(config.election.as_ref()), "Controllers": switched},
        "KubeCloudShared": {"ClusterCIDR": own.cluster_cidrs.join(","), "AllocateNodeCIDRs": !own.cluster_cidrs.is_empty()},
        "CSRSigningController": {"ClusterSigningDuration": seconds(own.certificate_seconds)},
        "NodeIPAMController": {"NodeCIDRMaskSizeIPv4": own.node_cidr_mask_v4, "NodeCIDRMaskSizeIPv6": own.node_cidr_mask_v6},
        "NodeLifecycleController": {
            "NodeMonitorGracePeriod": seconds(own.node_monitor_grace_seconds),
            "NodeStartupGracePeriod": seconds(own.node_startup_grace_seconds),
        },
        "PodGCController": {"TerminatedPodGCThreshold": own.terminated_pods_max},
    }})
}

pub fn scheduler(config: &scheduler::Config, elected: Option<&Election>) -> Value {
    let mut shown = scheduler::configuration(config);
    shown["LeaderElection"] = election(elected);
    json!({ "componentconfig": shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_effect_is_shown() {
        let mut config = controller_runtime::Config { disabled: vec!["node-ipam".to_owned()], ..controller_runtime::Config::default() };
        config.controllers.cluster_cidrs = vec!["10.244.0.0/16".to_owned()];
        config.election = Some(Election::new("kube-controller-manager", "me"));
        let shown = &controllers(&config)["kubecontrollermanager.config.k8s.io"];
        assert_eq!(shown["Generic"]["Controllers"], json!(["*", "-node-ipam"]));
        assert_eq!(shown["Generic"]["LeaderElection"]["LeaseDuration"], "15s");
        assert_eq!(shown["KubeCloudShared"], json!({"ClusterCIDR": "10.244.0.0/16", "AllocateNodeCIDRs": true}));
        assert_eq!(shown["CSRSigningController"]["ClusterSigningDuration"], "8760h0m0s");
        let shown = &scheduler(&scheduler::Config::default(), None)["componentconfig"];
        assert_eq!(shown["LeaderElection"], json!({"LeaderElect": false}));
        let plugins = shown["Profiles"][0]["Plugins"]["MultiPoint"]["Enabled"].as_array().unwrap();
        assert!(plugins.contains(&json!({"Name": "TaintToleration", "Weight": 3})), "{plugins:?}");
    }
}
