//! How many plain pods per second are placed on a large cluster: `cargo run --release -p scheduling --example throughput`,
//! with the numbers of nodes and pods, and the percentage of nodes to score (0: as upstream), as arguments.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a measurement")]

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduling::schedule::{Search, schedule_with};
use scheduling::{Cluster, PodInfo, Verdict};
use serde_json::json;

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let [nodes, pods, percentage] = [(0, 5000), (1, 20_000), (2, 0)].map(|(i, default)| arguments.get(i).copied().unwrap_or(default));
    let mut cluster = Cluster::default();
    let offers = json!({ "cpu": "32", "memory": "128Gi", "pods": "110" });
    for i in 0..nodes {
        let name = format!("node-{i:05}");
        let labels = json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", i % 3) });
        let node = json!({ "metadata": { "name": name, "labels": labels }, "status": { "allocatable": offers } });
        cluster.set_node(Arc::new(serde_json::from_value::<Node>(node).unwrap()));
    }
    let waiting: Vec<Arc<PodInfo>> = (0..pods)
        .map(|i| {
            let requests = json!({ "cpu": "100m", "memory": "200Mi" });
            let container = json!({ "name": "c", "image": "app", "resources": { "requests": requests } });
            let metadata = json!({ "name": format!("pod-{i}"), "namespace": "default", "labels": { "app": "web" } });
            let pod = json!({ "metadata": metadata, "spec": { "containers": [container] } });
            Arc::new(PodInfo::new(Arc::new(serde_json::from_value::<Pod>(pod).unwrap())))
        })
        .collect();
    let mut search = Search { percentage, ..Search::default() };
    let started = Instant::now();
    let mut random = 1_usize;
    for pod in waiting {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let Verdict::Place { node, .. } = schedule_with(&cluster, &pod, &mut search, &mut |n| (random >> 33) % n) else {
            panic!("{} does not fit", pod.key());
        };
        cluster.place(&node, pod);
    }
    let elapsed = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = pods as f64 / elapsed.as_secs_f64();
    println!("{pods} pods onto {nodes} nodes in {elapsed:?}: {rate:.0} pods/s, {:?} each", elapsed / u32::try_from(pods).unwrap());
}
