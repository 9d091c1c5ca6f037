//! Whether somebody may hand out rules: only those they hold themselves (upstream's `ConfirmNoEscalation`). Called by the
//! admission of roles and bindings, unless the `escalate` or `bind` verb is granted.

use super::{Policy, Rule};
use crate::user::User;

/// Of the rules asked for, broken down, those no owned rule covers; compacted by resource as upstream's errors show them.
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let uncovered: Vec<Rule> = wanted.iter().flat_map(Rule::break_down).filter(|w| !owned.iter().any(|o| o.covers(w))).collect();
    compact(uncovered)
}

/// Joins rules that differ in their verbs alone, where that loses nothing.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        let same = out.iter_mut().find(|o| {
            o.groups == rule.groups && o.resources == rule.resources && o.names == rule.names && o.urls == rule.urls && rule.urls.is_empty()
        });
        match same {
            Some(o) => o.verbs.extend(rule.verbs.into_iter().filter(|v| !o.verbs.contains(v)).collect::<Vec<_>>()),
            None => out.push(rule),
        }
    }
    out
}

/// What only the administrator of the whole cluster holds.
pub fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }, Rule { verbs: all(), urls: all(), ..Rule::default() }]
}

/// `Ok`, or the reason upstream gives after `is forbidden: `.
pub fn confirm_no_escalation(policy: &Policy, user: &User, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let (owned, errors) = policy.rules_for(user, namespace);
    let missing = missing(&owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut texts: Vec<String> = missing.iter().map(Rule::compact_string).collect();
    texts.sort();
    let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let mut text = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        texts.join("\n")
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", machinery::field::aggregate(&errors)));
    }
    Err(text)
}
