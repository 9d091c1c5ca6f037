//! Of every object: its generation and what its controller has seen of it never go back, its identity and the time it is
//! deleted at never change, and no two Services share an address.

use std::collections::BTreeMap;

use super::{Checked, Step};
use crate::state::{State, is_deleting, number, text, uid_of};

#[derive(Default)]
pub struct Generic {
    /// By UID, also of objects that are gone: none comes back.
    gone: BTreeMap<String, String>,
}

impl Generic {
    pub fn check(&mut self, step: &Step<'_>, state: &State) -> Checked {
        if step.is("events/") {
            return Ok(());
        }
        if let (Some(old), Some(new)) = (step.before(), step.after()) {
            unchanged(step.key, old, new)?;
        }
        match (step.before(), step.after()) {
            (Some(old), None) => drop(self.gone.insert(uid_of(old).to_owned(), step.key.to_owned())),
            (None, Some(new)) if !uid_of(new).is_empty() => {
                if let Some(key) = self.gone.get(uid_of(new)) {
                    return Err(format!("{} has the UID of {key}, which is gone", step.key));
                }
            }
            _ => {}
        }
        if step.is("services/specs/") { addresses(step, state) } else { Ok(()) }
    }
}

fn unchanged(key: &str, old: &serde_json::Value, new: &serde_json::Value) -> Checked {
    for path in ["/metadata/uid", "/metadata/creationTimestamp", "/metadata/name", "/metadata/namespace"] {
        if text(old, path) != text(new, path) {
            return Err(format!("{path} of {key} changed from {} to {}", text(old, path), text(new, path)));
        }
    }
    for path in ["/metadata/generation", "/status/observedGeneration"] {
        if number(new, path) < number(old, path) {
            return Err(format!("{path} of {key} went back from {} to {}", number(old, path), number(new, path)));
        }
    }
    if number(new, "/status/observedGeneration") > number(new, "/metadata/generation") && new.pointer("/metadata/generation").is_some() {
        return Err(format!("{key} has observed generation {}, which is not yet", number(new, "/status/observedGeneration")));
    }
    if is_deleting(old) && !is_deleting(new) {
        return Err(format!("{key} was being deleted and is not any more"));
    }
    Ok(())
}

fn addresses(step: &Step<'_>, state: &State) -> Checked {
    let Some(address) = step.after().map(|service| text(service, "/spec/clusterIP")).filter(|ip| !ip.is_empty() && *ip != "None") else {
        return Ok(());
    };
    let same = |(key, service): &(&str, &serde_json::Value)| *key != step.key && text(service, "/spec/clusterIP") == address;
    match state.under("/registry/services/specs/").find(same) {
        Some((other, _)) => Err(format!("{} and {other} share {address}", step.key)),
        None => Ok(()),
    }
}
