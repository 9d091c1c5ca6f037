//! The strategies of the built-in kinds, and the table that finds them. One file per kind or family.

pub mod pod;
mod pod_defaults;

use std::sync::Arc;

use crate::strategy::{Plain, Strategy};

/// The strategy of a resource; [`Plain`] for kinds without rules.
pub fn strategy_for(group: &str, resource: &str) -> Arc<dyn Strategy> {
    match (group, resource) {
        ("", "pods") => Arc::new(pod::Pods),
        _ => Arc::new(Plain),
    }
}
