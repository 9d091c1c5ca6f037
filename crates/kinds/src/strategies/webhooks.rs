//! ValidatingWebhookConfigurations and MutatingWebhookConfigurations.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use crate::columns::{age, name};
use crate::expressions::{self, Scope};
use crate::strategy::{Context, MetaRules, Strategy};
use crate::validate::admission::{client_config, match_conditions, rule_with_operations};
use crate::validate::rules::{Seen, named, optional_one_of};
use crate::validate::selector::label_selector_at;
use crate::validate::tree::{has, int, list, opt, s, strings};

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const QUIET: [&str; 2] = ["None", "NoneOnDryRun"];

/// `mutating` says which of the two kinds.
pub struct WebhookConfigurations {
    pub mutating: bool,
}

/// What an update must hold to; an old object that broke a rule may go on breaking it.
#[derive(Clone, Copy)]
struct Rules {
    quiet: bool,
    known_versions: bool,
    unique_names: bool,
}

impl Strategy for WebhookConfigurations {
    fn meta_rules(&self) -> MetaRules {
        MetaRules { kube_finalizers: false, update_again: false, create_on_update: true, own: false }
    }

    fn validate(&self, _ctx: &Context, object: &Value) -> ErrorList {
        self.judge(object, Rules { quiet: true, known_versions: true, unique_names: true })
    }

    fn validate_update(&self, _ctx: &Context, new: &Value, old: &Value) -> ErrorList {
        let hooks = list(old, "webhooks");
        let mut seen = Seen::default();
        let rules = Rules {
            quiet: hooks.iter().all(|h| QUIET.contains(&s(h, "sideEffects"))),
            known_versions: hooks.iter().all(|h| strings(h, "admissionReviewVersions").any(|v| VERSIONS.contains(&v))),
            unique_names: hooks.iter().all(|hook| !seen.again(s(hook, "name"))),
        };
        self.judge(new, rules)
    }

    fn cells(&self, o: &Value, now: i64) -> Option<Vec<Value>> {
        Some(vec![name(o), json!(list(o, "webhooks").len()), age(o, now)])
    }
}

impl WebhookConfigurations {
    fn judge(&self, object: &Value, rules: Rules) -> ErrorList {
        let (mut e, root) = (ErrorList::new(), Path::new("webhooks"));
        let hooks = list(object, "webhooks");
        let mut seen = Seen::default();
        for (i, hook) in hooks.iter().enumerate() {
            let p = root.index(i);
            self.hook(hook, rules, &p, &mut e);
            review_versions(hook, rules.known_versions, &p.child("admissionReviewVersions"), &mut e);
            let name = s(hook, "name");
            if seen.again(name) && rules.unique_names && !name.is_empty() {
                e.push(Error::duplicate(&p.child("name"), &json!(name)));
            }
        }
        e
    }

    fn hook(&self, v: &Value, rules: Rules, p: &Path<'_>, e: &mut ErrorList) {
        match s(v, "name") {
            "" => e.push(Error::required(&p.child("name"), "")),
            name => named(&p.child("name"), name, names::fully_qualified_name(name), e),
        }
        let at_rules = p.child("rules");
        for (i, rule) in list(v, "rules").iter().enumerate() {
            rule_with_operations(rule, &at_rules.index(i), e);
        }
        optional_one_of(v, "failurePolicy", p, &["Fail", "Ignore"], e);
        optional_one_of(v, "matchPolicy", p, &["Equivalent", "Exact"], e);
        if rules.quiet {
            if has(v, "sideEffects") {
                optional_one_of(v, "sideEffects", p, &QUIET, e);
            } else {
                e.push(Error::required(&p.child("sideEffects"), format!("must specify one of {}", QUIET.join(", "))));
            }
        } else {
            optional_one_of(v, "sideEffects", p, &["None", "NoneOnDryRun", "Some", "Unknown"], e);
        }
        if let Some(n) = int(v, "timeoutSeconds").filter(|n| !(1..=30).contains(n)) {
            e.push(Error::invalid(&p.child("timeoutSeconds"), &json!(n), "the timeout value must be between 1 and 30 seconds"));
        }
        label_selector_at(v, "namespaceSelector", p, e);
        label_selector_at(v, "objectSelector", p, e);
        if self.mutating {
            optional_one_of(v, "reinvocationPolicy", p, &["IfNeeded", "Never"], e);
        }
        client_config(opt(v, "clientConfig").unwrap_or(&Value::Null), &p.child("clientConfig"), e);
        if !list(v, "matchConditions").is_empty() {
            let env = expressions::admission(Scope { authorizer: true, ..Scope::default() });
            match_conditions(v, &env, p, e);
        }
    }
}

fn review_versions(v: &Value, known: bool, p: &Path<'_>, e: &mut ErrorList) {
    let all: Vec<&str> = strings(v, "admissionReviewVersions").collect();
    if all.is_empty() {
        e.push(Error::required(p, format!("must specify one of {}", VERSIONS.join(", "))));
        return;
    }
    let mut seen = Seen::default();
    for (i, version) in all.iter().enumerate() {
        if seen.again(*version) {
            e.push(Error::invalid_str(&p.index(i), version, "duplicate version"));
            continue;
        }
        named(&p.index(i), version, names::dns1035_label(version), e);
    }
    if known && !all.iter().any(|v| VERSIONS.contains(v)) {
        e.push(Error::invalid(p, &json!(all), format!("must include at least one of {}", VERSIONS.join(", "))));
    }
}
