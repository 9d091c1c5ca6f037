//! ImageLocality: nodes that have the pod's images already, weighed by size and by how many nodes have them.

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::{SCORE_MAX, Score, Scorer};
use crate::pod::PodInfo;

pub const NAME: &str = "ImageLocality";

const SMALLEST_BYTES: i64 = 23 * 1024 * 1024;
const GREATEST_PER_CONTAINER_BYTES: i64 = 1000 * 1024 * 1024;

/// Images of the pod, once per container, with the share of nodes that have each.
struct Locality {
    images: Vec<(String, f64)>,
    containers: i64,
}

#[expect(clippy::cast_precision_loss, reason = "upstream computes in float64 too")]
pub fn score(cluster: &Cluster, pod: &PodInfo, _: &[&NodeInfo]) -> Scorer {
    // Image volumes add to the sum, but not to what a pod of so many containers could have at most.
    let volumes = pod.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter_map(|v| v.image.as_ref());
    let images: Vec<(String, f64)> = pod
        .containers()
        .map(|c| c.image.as_deref())
        .chain(volumes.map(|v| v.reference.as_deref()))
        .map(|image| {
            let name = normalized(image.unwrap_or(""));
            let having = cluster.nodes_with_image(&name);
            (name, having as f64 / cluster.nodes.len() as f64)
        })
        .collect();
    let containers = i64::try_from(pod.containers().count()).unwrap_or(i64::MAX);
    Ok(Some(Box::new(Locality { images, containers })))
}

/// An image without a tag means `latest`.
fn normalized(image: &str) -> String {
    if image.rfind(':') <= image.rfind('/') { format!("{image}:latest") } else { image.to_owned() }
}

impl Score for Locality {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream computes in float64 too")]
    fn score(&self, _: &PodInfo, node: &NodeInfo) -> i64 {
        if node.images.is_empty() {
            return 0;
        }
        let sum: i64 = self.images.iter().filter_map(|(name, share)| Some((*node.images.get(name)? as f64 * share) as i64)).sum();
        let greatest = GREATEST_PER_CONTAINER_BYTES * self.containers;
        let sum = sum.clamp(SMALLEST_BYTES, greatest.max(SMALLEST_BYTES));
        if greatest <= SMALLEST_BYTES { 0 } else { SCORE_MAX * (sum - SMALLEST_BYTES) / (greatest - SMALLEST_BYTES) }
    }
}
