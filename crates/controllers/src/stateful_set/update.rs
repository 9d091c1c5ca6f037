//! A StatefulSet's roll-out from one revision to the next, and its status.

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Pass, Slot, identity};
use crate::deployment::scaled;
use crate::history::History;
use crate::meta;

impl Pass<'_> {
    fn is_rolling(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// Pods below this place, counted from the first ordinal, keep their revision.
    pub fn partition(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
    }

    /// Pods that may be down at a time; at least one.
    fn unavailable_max(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let value = rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
        scaled(&value, identity::replicas(self.spec), false).max(1)
    }

    /// Deletes pods of other revisions, the highest ordinal first. One that is down already goes at no cost; others while
    /// no more than allowed are down.
    pub fn roll(&mut self, slots: &[Slot]) {
        if !self.is_rolling() {
            return;
        }
        let pods: Vec<_> = slots.iter().filter_map(|slot| if let Slot::Pod(pod) = slot { Some(pod.clone()) } else { None }).collect();
        let down = slots.len() - pods.iter().filter(|pod| self.is_healthy(pod)).count();
        let mut room = self.unavailable_max().saturating_sub(i32::try_from(down).unwrap_or(i32::MAX));
        let first = identity::start(self.spec).saturating_add(self.partition());
        for pod in pods.iter().rev() {
            let in_part = identity::ordinal(self.set, pod).is_some_and(|ordinal| ordinal >= first);
            if !in_part || meta::is_deleting(&**pod) || identity::revision(pod) == self.update {
                continue;
            }
            if !self.is_healthy(pod) {
                self.delete(pod);
            } else if room > 0 {
                room -= 1;
                self.delete(pod);
            }
        }
    }

    /// As it is before this pass's changes.
    pub fn status(&self, history: &History) -> StatefulSetStatus {
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            current_revision: Some(self.current.clone()),
            update_revision: Some(self.update.clone()),
            collision_count: Some(history.collisions.unwrap_or(0)),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..StatefulSetStatus::default()
        };
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for pod in &self.owned {
            status.replicas += 1;
            ready += i32::from(self.is_ready(pod));
            available += i32::from(self.is_available(pod));
            if !meta::is_deleting(&**pod) {
                current += i32::from(identity::revision(pod) == self.current);
                updated += i32::from(identity::revision(pod) == self.update);
            }
        }
        let complete =
            self.is_rolling() && updated == status.replicas && ready == status.replicas && status.replicas == identity::replicas(self.spec);
        if complete {
            current = updated;
            status.current_revision.clone_from(&status.update_revision);
        }
        let positive = |count: i32| (count > 0).then_some(count);
        status.ready_replicas = positive(ready);
        status.current_replicas = positive(current);
        status.updated_replicas = positive(updated);
        // Always there, as upstream writes it.
        status.available_replicas = Some(available);
        status
    }
}
