//! A DaemonSet's roll-out from template to template: by making room first, or by starting the new pod beside the old one.
//! Upstream's `pkg/controller/daemon/update.go`.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ByNode, Pass, nodes};
use crate::deployment::scaled;
use crate::{meta, pods};

/// The oldest pod of the present template and the oldest of another, of those that are not going.
pub struct Pair {
    pub new: Option<Arc<Pod>>,
    pub old: Option<Arc<Pod>>,
    pub more: Vec<Arc<Pod>>,
}

pub fn allows_surge(spec: &DaemonSetSpec) -> bool {
    limits(spec, 100).0 > 0
}

/// Pods above and below one per node that a roll-out may use.
fn limits(spec: &DaemonSetSpec, wanted: i32) -> (i32, i32) {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |surge| scaled(surge, wanted, true));
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    let unavailable = scaled(&unavailable, wanted, true);
    (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
}

impl Pass<'_> {
    pub fn pair(&self, on_node: &[Arc<Pod>]) -> Pair {
        let mut staying: Vec<&Arc<Pod>> = on_node.iter().filter(|pod| !meta::is_deleting(&***pod)).collect();
        staying.sort_by_key(|pod| (meta::created(&***pod), meta::name(&***pod).to_owned()));
        let mut pair = Pair { new: None, old: None, more: Vec::new() };
        for pod in staying {
            let place = if self.is_current(pod) { &mut pair.new } else { &mut pair.old };
            match place {
                None => *place = Some(pod.clone()),
                Some(_) => pair.more.push(pod.clone()),
            }
        }
        pair
    }

    pub fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.context.now)
    }

    /// Nothing while pods are still to be made or deleted for other reasons.
    pub fn roll(&mut self, all: &[Arc<Node>], by_node: &ByNode) {
        let strategy = self.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        if on_delete || !self.creates.is_empty() || !self.deletes.is_empty() {
            return;
        }
        let (surge, unavailable) = limits(self.spec, self.status.desired_number_scheduled);
        let fitting: Vec<&Arc<Node>> = all.iter().filter(|node| nodes::should_run(self.spec, node).0).collect();
        if surge == 0 { self.make_room(&fitting, by_node, unavailable) } else { self.surge(&fitting, by_node, surge) }
    }

    /// Deletes old pods, those that do not serve first, while no more than allowed are unavailable.
    fn make_room(&mut self, fitting: &[&Arc<Node>], by_node: &ByNode, unavailable_max: i32) {
        let (mut room, mut available_old) = (unavailable_max, Vec::new());
        for node in fitting {
            let pair = self.pair(by_node.get(meta::name(&***node)).map(Vec::as_slice).unwrap_or_default());
            match (pair.new, pair.old) {
                (Some(new), None) => room -= i32::from(!self.is_available(&new)),
                (None, Some(old)) if self.is_available(&old) => available_old.push(old),
                // It is down already: replacing it costs nothing.
                (None, Some(old)) => self.delete(&old),
                (None, None) | (Some(_), Some(_)) => room -= 1,
            }
        }
        let count = usize::try_from(room).unwrap_or(0);
        available_old.iter().take(count).for_each(|pod| self.delete(pod));
    }

    /// Starts new pods beside old ones, and deletes an old one when its successor serves.
    fn surge(&mut self, fitting: &[&Arc<Node>], by_node: &ByNode, surge_max: i32) {
        let (mut room, mut candidates) = (surge_max, Vec::new());
        for node in fitting {
            let on_node = by_node.get(meta::name(&***node)).map(Vec::as_slice).unwrap_or_default();
            let pair = self.pair(on_node);
            let Some(old) = pair.old else { continue };
            match pair.new {
                None if self.is_available(&old) => candidates.push(*node),
                None => self.create(node),
                Some(new) if self.is_available(&new) => self.delete(&old),
                Some(_) => room -= 1,
            }
        }
        let count = usize::try_from(room).unwrap_or(0);
        candidates.iter().take(count).for_each(|node| self.create(node));
    }
}
