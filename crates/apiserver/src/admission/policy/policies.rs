//! The policies in force, followed in the store: a policy counts once something binds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::definition::{Binding, Definition, Hook};
use crate::admission::in_force::{InForce, List};
use crate::error::Result;
use crate::mirror::{self, Sink};
use crate::registry::Registry;

const GROUP: &str = "admissionregistration.k8s.io";

/// By name; shared by what follows the policies and what follows their bindings.
struct Known {
    mutating: bool,
    policies: BTreeMap<String, Arc<Definition>>,
    bindings: BTreeMap<String, Arc<Binding>>,
    hooks: List<Hook>,
}

impl Known {
    fn settle(&self) {
        let bound = |name: &str| self.bindings.values().filter(|b| b.policy == name).cloned().collect::<Vec<_>>();
        let hooks = self.policies.iter().map(|(name, policy)| Hook { policy: policy.clone(), bindings: bound(name) });
        self.hooks.store(Arc::new(hooks.filter(|hook| !hook.bindings.is_empty()).collect()));
    }
}

struct Follower {
    known: Arc<Mutex<Known>>,
    bindings: bool,
}

impl Sink for Follower {
    fn apply(&mut self, key: &str, object: Option<&Value>) {
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mutating = known.mutating;
        match object {
            Some(object) if self.bindings => drop(known.bindings.insert(name, Arc::new(Binding::parse(object)))),
            Some(object) => drop(known.policies.insert(name, Arc::new(Definition::parse(object, mutating)))),
            None if self.bindings => drop(known.bindings.remove(&name)),
            None => drop(known.policies.remove(&name)),
        }
    }

    fn settled(&mut self) {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).settle();
    }
}

/// All policies in force, in the order of their names.
pub type Policies = InForce<Hook>;

impl Policies {
    /// Reads the policies and spawns what follows them.
    pub async fn start(store: &Arc<dyn Store>, registry: &Registry, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> Result<Self> {
        let mut out = Self::default();
        for (kind, mutating) in [("MutatingAdmissionPolicy", true), ("ValidatingAdmissionPolicy", false)] {
            let hooks = if mutating { out.mutating.clone() } else { out.validating.clone() };
            let known = Known { mutating, policies: BTreeMap::new(), bindings: BTreeMap::new(), hooks };
            let known = Arc::new(Mutex::new(known));
            for bindings in [false, true] {
                let kind = if bindings { format!("{kind}Binding") } else { kind.to_owned() };
                let Some(row) = registry.kind(GROUP, &kind) else { continue };
                let sink = Arc::new(Mutex::new(Follower { known: known.clone(), bindings }));
                let (reached, task) = mirror::start(store.clone(), format!("{}/", row.storage_prefix), sink, cancel.clone()).await?;
                out.progress.push(reached);
                tasks.spawn(task);
            }
        }
        Ok(out)
    }
}
