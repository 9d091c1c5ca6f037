//! What the checks of the two levels share: the pod they look at, and how they say what they found.

use std::collections::BTreeSet;

use machinery::field::go_quote;
use serde_json::Value;

use crate::validate::tree::{flag_is, list, s};

/// Something a standard forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

/// A pod as the checks see it.
pub struct Pod<'a> {
    pub annotations: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    pub fn new(pod: &'a Value) -> Self {
        Self { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
    }

    pub fn security(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Init containers, containers, ephemeral containers.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |key| list(spec, key))
    }

    /// The names of containers that a predicate finds bad.
    pub fn bad(&self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| is_bad(c)).map(|c| s(c, "name")).collect()
    }

    pub fn is_windows(&self) -> bool {
        s(&self.spec["os"], "name") == "windows"
    }

    /// A pod in a user namespace of its own: some rules are void there (KEP-127).
    pub fn has_user_namespace(&self) -> bool {
        flag_is(self.spec, "hostUsers", false)
    }
}

/// `container "a"`, `containers "a", "b"`; `None` for no names.
pub fn containers(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied())))
}

/// `pod`, `container "a"`, or both: who set something bad.
pub fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    all.extend(containers(names));
    (!all.is_empty()).then(|| all.join(" and "))
}

pub fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
pub fn quoted<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    values.into_iter().map(go_quote).collect::<Vec<_>>().join(", ")
}

/// Values that were found bad, each once and in order.
pub type Values<'a> = BTreeSet<&'a str>;

/// The security context of a container.
pub fn security(container: &Value) -> &Value {
    &container["securityContext"]
}
