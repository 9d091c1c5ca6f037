//! What the kubelet tells of itself: pods, configuration, statistics and metrics.

use std::collections::BTreeMap;
use std::fmt::Write;

use cri::v1;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::routes::{Body, json as answer, plain};
use crate::kubelet::Node;
use crate::labels;

pub fn pods(node: &Node) -> Response<Body> {
    let items: Vec<Value> = node.pods.list().iter().filter_map(|p| serde_json::to_value(&**p).ok()).collect();
    answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

pub async fn running_pods(node: &Node) -> Response<Body> {
    let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let filter = v1::ContainerFilter { state: Some(state), ..Default::default() };
    let list = match node.cri.runtime.clone().list_containers(v1::ListContainersRequest { filter: Some(filter) }).await {
        Ok(list) => list.into_inner().containers,
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let mut pods: BTreeMap<String, Value> = BTreeMap::new();
    for c in list {
        let label = |k: &str| c.labels.get(k).cloned().unwrap_or_default();
        let uid = label(labels::POD_UID);
        let metadata = json!({"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid});
        let pod = pods.entry(uid).or_insert_with(|| json!({"metadata": metadata, "spec": {"containers": []}, "status": {}}));
        if let Some(list) = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut) {
            list.push(json!({"name": label(labels::CONTAINER_NAME), "image": c.image_ref, "resources": {}}));
        }
    }
    answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.into_values().collect::<Vec<_>>()}))
}

pub fn configz(node: &Node) -> Response<Body> {
    let c = &node.config;
    answer(&json!({"kubeletconfig": {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "port": c.port(), "clusterDomain": c.cluster_domain, "clusterDNS": c.cluster_dns, "maxPods": c.max_pods,
        "cgroupRoot": c.cgroup_root, "resolvConf": c.resolv_conf, "nodeLeaseDurationSeconds": c.lease_seconds,
        "containerLogMaxSize": format!("{}Mi", c.container_log_max_bytes >> 20), "containerLogMaxFiles": c.container_log_max_files,
        "imageGCHighThresholdPercent": c.image_gc_high_percent, "imageGCLowThresholdPercent": c.image_gc_low_percent,
        "failSwapOn": false, "cgroupDriver": "cgroupfs"}}))
}

fn number(v: Option<&v1::UInt64Value>) -> u64 {
    v.map_or(0, |v| v.value)
}

fn cpu(c: Option<&v1::CpuUsage>) -> Value {
    let c = c.cloned().unwrap_or_default();
    json!({"time": time(c.timestamp), "usageNanoCores": number(c.usage_nano_cores.as_ref()), "usageCoreNanoSeconds": number(c.usage_core_nano_seconds.as_ref())})
}

fn memory(m: Option<&v1::MemoryUsage>) -> Value {
    let m = m.cloned().unwrap_or_default();
    json!({
        "time": time(m.timestamp), "availableBytes": number(m.available_bytes.as_ref()), "usageBytes": number(m.usage_bytes.as_ref()),
        "workingSetBytes": number(m.working_set_bytes.as_ref()), "rssBytes": number(m.rss_bytes.as_ref()),
        "pageFaults": number(m.page_faults.as_ref()), "majorPageFaults": number(m.major_page_faults.as_ref())})
}

fn time(ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Statistics of all containers, by pod UID.
async fn stats(node: &Node) -> Result<BTreeMap<String, Vec<v1::ContainerStats>>, tonic::Status> {
    let list = node.cri.runtime.clone().list_container_stats(v1::ListContainerStatsRequest::default()).await?.into_inner().stats;
    let mut out: BTreeMap<String, Vec<v1::ContainerStats>> = BTreeMap::new();
    for s in list {
        let uid = s.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID)).cloned();
        if let Some(uid) = uid {
            out.entry(uid).or_default().push(s);
        }
    }
    Ok(out)
}

fn label(s: &v1::ContainerStats, key: &str) -> String {
    s.attributes.as_ref().and_then(|a| a.labels.get(key)).cloned().unwrap_or_default()
}

/// CPU seconds used since boot and memory used, of the whole node.
fn node_usage() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .enumerate()
        .filter(|(i, _)| *i != 3 && *i != 4)
        .filter_map(|(_, t)| t.parse::<u64>().ok())
        .sum();
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let get = |k: &str| {
        let line = info.lines().find(|l| l.starts_with(k));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    (ticks as f64 / 100.0, get("MemTotal:").saturating_sub(get("MemAvailable:")))
}

pub async fn summary(node: &Node) -> Response<Body> {
    let by_pod = match stats(node).await {
        Ok(stats) => stats,
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pods = Vec::new();
    for (uid, list) in by_pod {
        let Some(first) = list.first() else { continue };
        let sum = |f: &dyn Fn(&v1::ContainerStats) -> u64| list.iter().map(f).sum::<u64>();
        let cpu_of = |s: &v1::ContainerStats| s.cpu.unwrap_or_default();
        let memory_of = |s: &v1::ContainerStats| s.memory.unwrap_or_default();
        let containers: Vec<Value> = list.iter().map(|s| json!({"name": label(s, labels::CONTAINER_NAME), "startTime": now, "cpu": cpu(s.cpu.as_ref()), "memory": memory(s.memory.as_ref())})).collect();
        pods.push(json!({
            "podRef": {"name": label(first, labels::POD_NAME), "namespace": label(first, labels::POD_NAMESPACE), "uid": uid},
            "startTime": now, "containers": containers,
            "cpu": {"time": now, "usageNanoCores": sum(&|s| number(cpu_of(s).usage_nano_cores.as_ref())), "usageCoreNanoSeconds": sum(&|s| number(cpu_of(s).usage_core_nano_seconds.as_ref()))},
            "memory": {"time": now, "workingSetBytes": sum(&|s| number(memory_of(s).working_set_bytes.as_ref())), "usageBytes": sum(&|s| number(memory_of(s).usage_bytes.as_ref()))}}));
    }
    let (cpu_seconds, used) = node_usage();
    let nanos = (cpu_seconds * 1e9) as u64;
    let memory_total = u64::try_from(node.memory_bytes).unwrap_or(0);
    answer(&json!({
        "node": {"nodeName": node.config.node_name, "startTime": now,
            "cpu": {"time": now, "usageCoreNanoSeconds": nanos},
            "memory": {"time": now, "availableBytes": memory_total.saturating_sub(used), "usageBytes": used, "workingSetBytes": used}},
        "pods": pods}))
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, lines: &[(String, f64)]) {
    let written = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    debug_assert!(written.is_ok(), "a String takes all");
    for (labels, value) in lines {
        let written = writeln!(out, "{name}{labels} {value}");
        debug_assert!(written.is_ok(), "a String takes all");
    }
}

fn exposition(text: String) -> Response<Body> {
    let mut response = plain(StatusCode::OK, text);
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert("content-type", kind);
    response
}

pub async fn metrics(node: &Node) -> Response<Body> {
    let pods = node.pods.list();
    let running = match stats(node).await {
        Ok(stats) => stats,
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let mut out = String::new();
    metric(
        &mut out,
        "kubelet_node_name",
        "gauge",
        "[ALPHA] The node's name. The count is always 1.",
        &[(format!("{{node={:?}}}", node.config.node_name), 1.0)],
    );
    metric(
        &mut out,
        "kubelet_running_pods",
        "gauge",
        "[BETA] Number of pods that have a running pod sandbox",
        &[(String::new(), running.len() as f64)],
    );
    let containers = running.values().map(Vec::len).sum::<usize>() as f64;
    metric(
        &mut out,
        "kubelet_running_containers",
        "gauge",
        "[BETA] Number of containers currently running",
        &[("{container_state=\"running\"}".to_owned(), containers)],
    );
    metric(
        &mut out,
        "kubelet_desired_pods",
        "gauge",
        "[ALPHA] The number of pods the kubelet is being instructed to run.",
        &[("{static=\"\"}".to_owned(), pods.len() as f64)],
    );
    let version = format!("{{git_version={:?},major=\"1\",minor=\"36\",platform=\"linux/{}\"}}", crate::VERSION, crate::node::arch());
    metric(&mut out, "kubernetes_build_info", "gauge", "[ALPHA] Which version runs; the value is always 1.", &[(version, 1.0)]);
    exposition(out)
}

pub async fn resource_metrics(node: &Node) -> Response<Body> {
    let by_pod = match stats(node).await {
        Ok(stats) => stats,
        Err(status) => return plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    };
    let (cpu_seconds, used) = node_usage();
    let (mut cpus, mut memories, mut pod_cpus, mut pod_memories) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for list in by_pod.values() {
        let (mut pod_cpu, mut pod_memory, mut pod_name) = (0.0, 0.0, String::new());
        for s in list {
            let pod = format!("namespace={:?},pod={:?}", label(s, labels::POD_NAMESPACE), label(s, labels::POD_NAME));
            let name = format!("{{container={:?},{pod}}}", label(s, labels::CONTAINER_NAME));
            let used_cpu = s.cpu.as_ref().map_or(0, |c| number(c.usage_core_nano_seconds.as_ref())) as f64 / 1e9;
            let used_memory = s.memory.as_ref().map_or(0, |m| number(m.working_set_bytes.as_ref())) as f64;
            cpus.push((name.clone(), used_cpu));
            memories.push((name, used_memory));
            (pod_cpu, pod_memory, pod_name) = (pod_cpu + used_cpu, pod_memory + used_memory, format!("{{{pod}}}"));
        }
        pod_cpus.push((pod_name.clone(), pod_cpu));
        pod_memories.push((pod_name, pod_memory));
    }
    let mut out = String::new();
    metric(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &cpus,
    );
    metric(&mut out, "container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes", &memories);
    metric(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        &[(String::new(), cpu_seconds)],
    );
    metric(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
        &[(String::new(), used as f64)],
    );
    metric(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &pod_cpus,
    );
    metric(&mut out, "pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes", &pod_memories);
    metric(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        &[(String::new(), 0.0)],
    );
    exposition(out)
}
