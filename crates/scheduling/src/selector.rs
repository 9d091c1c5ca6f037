//! Label selectors and node selector terms, compiled once per pod and matched many times.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use machinery::field::go_quote;
use machinery::names;

pub type Labels = BTreeMap<String, String>;

/// A label selector. Upstream: `nil` selects nothing, an empty one everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `None`: selects nothing.
    requirements: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    /// The label is an integer greater than this.
    Gt(i64),
    Lt(i64),
}

impl Requirement {
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.op {
            Op::In(values) => value.is_some_and(|v| values.contains(v)),
            Op::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::Gt(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
            Op::Lt(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
        }
    }
}

impl Selector {
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut out: Vec<Requirement> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement { key: key.clone(), op: Op::In(vec![value.clone()]) })
            .collect();
        for e in selector.match_expressions.iter().flatten() {
            let values = || e.values.clone().unwrap_or_default();
            let op = match e.operator.as_str() {
                "In" => Op::In(values()),
                "NotIn" => Op::NotIn(values()),
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                _ => return Self::nothing(),
            };
            out.push(Requirement { key: e.key.clone(), op });
        }
        Self { requirements: Some(out) }
    }

    /// Equality on every pair; empty pairs select everything.
    pub fn of_set(labels: &Labels) -> Self {
        let requirements = labels.iter().map(|(k, v)| Requirement { key: k.clone(), op: Op::In(vec![v.clone()]) });
        Self { requirements: Some(requirements.collect()) }
    }

    /// Both must match.
    pub fn and(mut self, other: Self) -> Self {
        self.requirements = match (self.requirements, other.requirements) {
            (Some(mut a), Some(b)) => {
                a.extend(b);
                Some(a)
            }
            _ => None,
        };
        self
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.as_ref().is_some_and(|r| r.iter().all(|r| r.matches(labels)))
    }

    /// Selects everything, or nothing: no requirement to look at.
    pub fn is_empty(&self) -> bool {
        self.requirements.as_ref().is_none_or(Vec::is_empty)
    }
}

/// One node selector term: all expressions and fields must match; a term with neither matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerm {
    expressions: Vec<Requirement>,
    /// Only `metadata.name` can be selected.
    fields: Vec<Requirement>,
}

impl NodeTerm {
    /// The term at this place of a list; errors with upstream's texts where operators or values are not valid.
    pub fn of(term: &NodeSelectorTerm, index: usize) -> Result<Self, Vec<String>> {
        let mut errors = Vec::new();
        let mut compile = |field: &str, list: &Option<Vec<NodeSelectorRequirement>>| -> Vec<Requirement> {
            let at = |i| format!("[{index}].{field}[{i}]");
            list.iter().flatten().enumerate().filter_map(|(i, e)| node_requirement(e, &at(i), &mut errors)).collect()
        };
        let expressions = compile("matchExpressions", &term.match_expressions);
        let fields = compile("matchFields", &term.match_fields);
        if errors.is_empty() { Ok(Self { expressions, fields }) } else { Err(errors) }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.expressions.iter().all(|r| r.matches(labels)) && (self.fields.is_empty() || self.matches_name(name))
    }

    fn matches_name(&self, name: &str) -> bool {
        let labels = Labels::from([("metadata.name".to_owned(), name.to_owned())]);
        self.fields.iter().all(|r| r.matches(&labels))
    }

    /// The node names the term's fields allow; `None`: any.
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names: Option<Vec<&str>> = None;
        for field in &self.fields {
            if let (true, Op::In(values)) = (field.key == "metadata.name", &field.op) {
                let these: Vec<&str> = values.iter().map(String::as_str).collect();
                names = Some(match names {
                    None => these,
                    Some(before) => before.into_iter().filter(|n| these.contains(n)).collect(),
                });
            }
        }
        names
    }
}

/// Upstream's `labels.NewRequirement`.
fn node_requirement(e: &NodeSelectorRequirement, path: &str, errors: &mut Vec<String>) -> Option<Requirement> {
    let before = errors.len();
    let values = e.values.clone().unwrap_or_default();
    let invalid = |path: String, value: &str, detail: &str| format!("{path}: Invalid value: {value}: {detail}");
    for problem in names::qualified_name(&e.key) {
        errors.push(invalid(format!("{path}.key"), &go_quote(&e.key), &problem));
    }
    let list = || format!("[{}]", values.iter().map(|v| go_quote(v)).collect::<Vec<_>>().join(","));
    let op = match e.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(invalid(format!("{path}.values"), &list(), "for 'in', 'notin' operators, values set can't be empty"));
            None
        }
        "In" => Some(Op::In(values.clone())),
        "NotIn" => Some(Op::NotIn(values.clone())),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(invalid(format!("{path}.values"), &list(), "values set must be empty for exists and does not exist"));
            None
        }
        "Exists" => Some(Op::Exists),
        "DoesNotExist" => Some(Op::DoesNotExist),
        "Gt" | "Lt" => {
            if values.len() != 1 {
                errors.push(invalid(format!("{path}.values"), &list(), "for 'Gt', 'Lt' operators, exactly one value is required"));
            }
            let mut bound = None;
            for (i, value) in values.iter().enumerate() {
                match value.parse::<i64>() {
                    Ok(number) => bound = Some(number),
                    Err(_) => errors.push(invalid(
                        format!("{path}.values[{i}]"),
                        &go_quote(value),
                        "for 'Gt', 'Lt' operators, the value must be an integer",
                    )),
                }
            }
            bound.map(if e.operator == "Gt" { Op::Gt } else { Op::Lt })
        }
        other => {
            errors.push(format!("{path}.operator: {} is not a valid node selector operator", go_quote(other)));
            None
        }
    };
    for (i, value) in values.iter().enumerate() {
        for problem in names::label_value(value) {
            errors.push(invalid(format!("{path}.values[{i}][{}]", e.key), &go_quote(value), &problem));
        }
    }
    op.filter(|_| errors.len() == before).map(|op| Requirement { key: e.key.clone(), op })
}
