//! What hangs on objects that are followed in the store and is asked for every write: webhooks and policies, those that change
//! and those that refuse apart. `webhooks::Hooks` and `policy::Policies` are made of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use store::Revision;

use crate::mirror::{self, Progress};

/// Swapped as a whole when something that makes it up has changed.
pub type List<H> = Arc<ArcSwap<Vec<H>>>;

/// In the order they are asked.
pub struct InForce<H> {
    pub(super) mutating: List<H>,
    pub(super) validating: List<H>,
    pub(super) progress: Vec<Progress>,
}

impl<H> Default for InForce<H> {
    fn default() -> Self {
        Self { mutating: Arc::default(), validating: Arc::default(), progress: Vec::new() }
    }
}

impl<H> InForce<H> {
    pub fn mutating(&self) -> Arc<Vec<H>> {
        self.mutating.load_full()
    }

    pub fn validating(&self) -> Arc<Vec<H>> {
        self.validating.load_full()
    }

    pub fn has_mutating(&self) -> bool {
        !self.mutating.load().is_empty()
    }

    pub fn has_validating(&self) -> bool {
        !self.validating.load().is_empty()
    }

    /// After a write: returns when what it changes is in force.
    pub async fn caught_up(&self, key: &str, revision: Revision) {
        mirror::caught_up(&self.progress, key, revision).await;
    }
}
