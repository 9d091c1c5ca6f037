//! What the rules of a definition may cost: each by itself, and all together. Upstream's limits and texts.

use machinery::field::ErrorType;
use serde_json::Value;

use super::go_json;
use super::rules::compile::Compiled;
use super::rules::declare::Decl;
use crate::validate::tree::{has, int, s};
use crate::validate::{Error, ErrorList, Path};

/// The most one expression may cost by estimate.
const RULE_MAX: u64 = 10_000_000;
/// The most all expressions of a schema may cost by estimate.
const SCHEMA_MAX: u64 = 100_000_000;
/// How many of the most expensive are named.
const NAMED_MAX: usize = 4;

/// Costs seen so far.
#[derive(Default)]
pub struct Costs {
    /// Single expressions may cost what they do: the schema has not changed.
    unchanged: bool,
    total: u64,
    most: Vec<(u64, String)>,
}

impl Costs {
    /// `unchanged` says that an update leaves the schema as it was.
    pub fn new(unchanged: bool) -> Self {
        Self { unchanged, ..Self::default() }
    }

    /// Errors of one rule: what it costs, and why it does not compile.
    pub fn rule(&mut self, compiled: &Compiled, decl: &Decl, cardinality: Option<u64>, given: &Value, p: &Path<'_>, e: &mut ErrorList) {
        let times = cardinality.unwrap_or_else(|| decl.cardinality_max());
        let invalid = |at: &Path<'_>, text: &str| Error {
            kind: ErrorType::Invalid,
            field: at.to_string(),
            value: go_json::rule(given),
            detail: text.to_owned(),
        };
        let at = p.child("rule");
        self.observe("estimated rule cost", compiled.cost_max(decl).saturating_mul(times), &at, e);
        if let Err(why) = &compiled.program
            && !compiled.rule.rule.trim().is_empty()
        {
            e.push(invalid(&at, why));
        }
        let at = p.child("messageExpression");
        if let Some(Err(why)) = &compiled.message {
            e.push(invalid(&at, why));
        }
        if let Some(cost) = compiled.message_cost_max(decl) {
            self.observe("estimated messageExpression cost", cost, &at, e);
        }
    }

    fn observe(&mut self, what: &str, cost: u64, at: &Path<'_>, e: &mut ErrorList) {
        if !self.unchanged && cost > RULE_MAX {
            e.push(Error::forbidden(at, exceeds(what, cost, RULE_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_MAX / 100 {
            self.most.push((cost, at.to_string()));
            self.most.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.most.truncate(NAMED_MAX);
        }
    }

    /// Errors of all rules together.
    pub fn errors(self, p: &Path<'_>) -> ErrorList {
        if self.total <= SCHEMA_MAX {
            return ErrorList::new();
        }
        const SHARE: &str = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let forbidden = |field: String, text: String| Error { kind: ErrorType::Forbidden, field, value: String::new(), detail: text };
        let mut errors: ErrorList = self.most.into_iter().map(|(_, field)| forbidden(field, SHARE.to_owned())).collect();
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(forbidden(p.to_string(), exceeds(what, self.total, SCHEMA_MAX)));
        errors
    }
}

fn exceeds(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where \
         arrays, maps, and strings are declared)"
    )
}

/// How many values there can be of what is below a schema.
pub fn child_cardinality(cardinality: Option<u64>, parent: &Value) -> Option<u64> {
    let limit = |key: &str| int(parent, key).map(|n| u64::try_from(n).unwrap_or(0));
    let times = match s(parent, "type") {
        "object" if has(parent, "additionalProperties") => limit("maxProperties")?,
        "array" => limit("maxItems")?,
        _ => 1,
    };
    Some(cardinality?.saturating_mul(times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn factors_are_printed_as_upstream_does() {
        for (cost, wanted) in [(12_000_000, "1.200000x"), (25_000_000, "2.5x"), (2_000_000_000, "more than 100x")] {
            assert!(exceeds("estimated rule cost", cost, RULE_MAX).contains(&format!("by factor of {wanted} (try")), "{cost}");
        }
    }

    #[test]
    fn unbounded_lists_leave_nothing_bounded_below() {
        let list = |max: Value| json!({"type": "array", "maxItems": max});
        assert_eq!(child_cardinality(Some(2), &list(json!(5))), Some(10));
        assert_eq!(child_cardinality(Some(2), &list(Value::Null)), None);
        assert_eq!(child_cardinality(None, &list(json!(5))), None);
        assert_eq!(child_cardinality(Some(2), &json!({"type": "object"})), Some(2));
    }
}
