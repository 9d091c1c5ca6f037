//! No object is made that takes a namespace over its quota, as it was a moment ago and is now.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Checked, Step};
use crate::state::{State, is_active, text};

/// How long admission may not know yet of a quota, or of its being smaller.
const LEARNT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Quota {
    /// When each quota's limits were last set, by key.
    set: BTreeMap<String, Duration>,
}

impl Quota {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        if step.is("resourcequotas/") {
            let limits = |quota: Option<&Value>| quota.and_then(|quota| quota.pointer("/spec/hard")).cloned();
            if limits(step.before()) != limits(step.after()) {
                self.set.insert(step.key.to_owned(), step.now);
            }
            return Ok(());
        }
        for (kind, prefix) in [("pods", "pods/"), ("services", "services/specs/"), ("persistentvolumeclaims", "persistentvolumeclaims/")] {
            if let (true, None, Some(object)) = (step.is(prefix), step.before(), step.after()) {
                self.within(step, kind, &format!("/registry/{prefix}"), text(object, "/metadata/namespace"), state)?;
            }
        }
        Ok(())
    }

    fn within(&self, step: &Step<'_>, kind: &str, prefix: &str, namespace: &str, state: &State) -> Checked {
        let there = format!("{prefix}{namespace}/");
        // Pods on their way out count until their time is over, by a clock that may be set.
        let count = state.under(&there).filter(|(_, object)| kind != "pods" || is_active(object)).count();
        for (key, quota) in state.under(&format!("/registry/resourcequotas/{namespace}/")) {
            let most = quota.pointer(&format!("/spec/hard/{kind}")).and_then(Value::as_str).and_then(|text| text.parse::<usize>().ok());
            let known = self.set.get(key).is_some_and(|at| *at + LEARNT <= step.now);
            if let (true, Some(most)) = (known, most)
                && count > most
            {
                return Err(format!("with {} there are {count} {kind} in {namespace}, of {most}", step.key));
            }
        }
        Ok(())
    }
}
