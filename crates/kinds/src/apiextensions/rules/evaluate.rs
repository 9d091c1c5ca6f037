//! Evaluating the rules of an object: which old value belongs to which new one, messages, reasons, budgets, and errors that
//! count for nothing because the value has not changed.

use std::collections::BTreeMap;

use cel::{Budget, ErrorKind, EvalError, Program, Variables};
use machinery::field::{Error, ErrorType, go_quote, go_value};
use machinery::structural::{ListType, Place, Schema};
use serde_json::{Map, Value};

use super::compile::Compiled;
use super::{Node, Rules};
use crate::validate::ErrorList;

/// The longest message an expression may make.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

impl Rules {
    /// Errors of an object whose types are sound, and those that count for nothing, because the value has not changed, as warnings.
    /// After the budget is spent no rule is run any more.
    pub fn evaluate(&self, schema: &Schema, new: &Value, old: Option<&Value>, budget: &mut Budget) -> (ErrorList, Vec<String>) {
        let same = old.map_or(Same::Unknown, |old| Same::If(new, old));
        self.walk(schema, new, At { old, same, place: Place::root(), top: true }, budget)
    }

    /// Errors of a default, which stands somewhere and replaces itself; nothing is forgiven it for that.
    pub fn evaluate_default(&self, schema: &Schema, default: &Value, place: Place<'_>, budget: &mut Budget) -> ErrorList {
        self.walk(schema, default, At { old: Some(default), same: Same::Never, place, top: true }, budget).0
    }

    fn walk(&self, schema: &Schema, new: &Value, at: At<'_>, budget: &mut Budget) -> (ErrorList, Vec<String>) {
        let mut walk = Walk { budget, errors: ErrorList::new(), warnings: Vec::new(), stopped: false };
        if let Some(node) = &self.root {
            walk.node(node, schema, new, at);
        }
        (walk.errors, walk.warnings)
    }
}

/// Whether errors here count for nothing: the nearest value that can be told to be the same one has not changed.
#[derive(Clone, Copy)]
enum Same<'a> {
    /// Nowhere here or below.
    Never,
    Unknown,
    If(&'a Value, &'a Value),
}

impl<'a> Same<'a> {
    /// Of a value with an old one, below this.
    fn with(self, new: &'a Value, old: Option<&'a Value>) -> Self {
        match (self, old) {
            (Self::Never, _) | (_, None) => self,
            (_, Some(old)) => Self::If(new, old),
        }
    }

    fn holds(self) -> bool {
        match self {
            Self::Never | Self::Unknown => false,
            Self::If(new, old) => new == old,
        }
    }
}

#[derive(Clone, Copy)]
struct At<'a> {
    old: Option<&'a Value>,
    same: Same<'a>,
    place: Place<'a>,
    top: bool,
}

struct Walk<'b> {
    budget: &'b mut Budget,
    errors: ErrorList,
    /// Errors that are forgiven.
    warnings: Vec<String>,
    stopped: bool,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, schema: &Schema, new: &Value, at: At<'_>) {
        if new.is_null() || self.stopped {
            return;
        }
        let old = at.old.filter(|old| !old.is_null());
        for compiled in &node.own {
            if self.stopped {
                return;
            }
            self.rule(compiled, node.kind, new, At { old, ..at });
        }
        match new {
            Value::Array(items) => self.array(node, schema, items, At { old, ..at }),
            Value::Object(map) => self.object(node, schema, map, At { old, ..at }),
            _ => {}
        }
    }

    fn array(&mut self, node: &Node, schema: &Schema, items: &[Value], at: At<'_>) {
        let (Some(below), Some(item_schema)) = (&node.items, &schema.items) else { return };
        let keys = |item: &Value| -> String {
            let keys: Map<String, Value> = schema.list_map_keys.iter().filter_map(|k| Some((k.clone(), item.get(k)?.clone()))).collect();
            Value::Object(keys).to_string()
        };
        let mut before: BTreeMap<String, &Value> = BTreeMap::new();
        if schema.list_type == Some(ListType::Map) {
            for item in at.old.and_then(Value::as_array).into_iter().flatten() {
                before.entry(keys(item)).or_insert(item);
            }
        }
        for (index, item) in items.iter().enumerate() {
            if self.stopped {
                return;
            }
            let old = if before.is_empty() { None } else { before.get(&keys(item)).copied() };
            let same = at.same.with(item, old);
            self.node(below, item_schema, item, At { old, same, place: at.place.index(index), top: false });
        }
    }

    fn object(&mut self, node: &Node, schema: &Schema, map: &Map<String, Value>, at: At<'_>) {
        let before = at.old.and_then(Value::as_object);
        for (name, item) in map {
            if self.stopped {
                return;
            }
            let old = before.and_then(|map| map.get(name));
            // What version an object is of is not for it to keep.
            let own = at.top && matches!(name.as_str(), "apiVersion" | "kind");
            let same = if own { Same::Never } else { at.same.with(item, old) };
            if let Some((below, property)) = node.properties.get(name).zip(schema.properties.get(name)) {
                self.node(below, property, item, At { old, same, place: at.place.child(name), top: false });
            } else if let (Some(below), Some(values), false) =
                (&node.additional, schema.additional_schema(), schema.properties.contains_key(name))
            {
                self.node(below, values, item, At { old, same, place: at.place.key(name), top: false });
            }
        }
    }

    fn fail(&mut self, kind: &str, at: At<'_>, text: String) {
        self.errors.push(at.place.with(|p| Error::invalid_str(p, kind, text)));
    }

    fn rule(&mut self, compiled: &Compiled, kind: &str, new: &Value, at: At<'_>) {
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return self.fail(kind, at, format!("rule compile error: {why}")),
        };
        let optional = compiled.rule.optional_old_self == Some(true);
        if compiled.uses_old_self && at.old.is_none() && !optional {
            return;
        }
        let mut variables = Variables::new();
        variables.json("self", new);
        if optional {
            variables.optional_json("oldSelf", at.old);
        } else if let Some(old) = at.old {
            variables.json("oldSelf", old);
        }
        match program.eval(&variables, self.budget) {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => self.broken(compiled, kind, new, at),
            Err(error) => self.failed(compiled, kind, &error, at),
        }
    }

    /// An evaluation that gave no answer.
    fn failed(&mut self, compiled: &Compiled, kind: &str, error: &EvalError, at: At<'_>) {
        let shown = shown(compiled);
        let text = match error.kind {
            ErrorKind::BudgetExhausted => {
                self.stopped = true;
                OUT_OF_BUDGET.to_owned()
            }
            ErrorKind::CallLimit => {
                self.stopped = true;
                format!("'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}")
            }
            ErrorKind::Evaluation if error.message.starts_with("no such overload") => {
                format!("'{error}': call arguments did not match a supported operator, function or macro signature for rule: {shown}")
            }
            ErrorKind::Evaluation => format!("{error} evaluating rule: {shown}"),
        };
        self.fail(kind, at, text);
    }

    /// A rule that does not hold.
    fn broken(&mut self, compiled: &Compiled, kind: &str, new: &Value, at: At<'_>) {
        let below = compiled.field_path.as_str();
        let place = if below.is_empty() { at.place } else { at.place.child(below) };
        let (text, stop) = match compiled.message.as_ref().and_then(|m| m.as_ref().ok()) {
            None => (None, false),
            Some(program) => self.message(program, &compiled.rule.message_expression, new, at.old),
        };
        self.stopped |= stop;
        let detail = text.unwrap_or_else(|| match compiled.rule.message.trim() {
            "" => format!("failed rule: {}", shown(compiled)),
            message => message.to_owned(),
        });
        // Lists and objects are not shown.
        let value = if matches!(kind, "object" | "array") { String::new() } else { go_value(new) };
        let error = place.with(|p| {
            let error = |kind: ErrorType, value: String, detail: String| Error { kind, field: p.to_string(), value, detail };
            match compiled.rule.reason.as_str() {
                _ if stop => Error::invalid_str(p, kind, detail),
                "FieldValueForbidden" => Error::forbidden(p, detail),
                "FieldValueRequired" => Error::required(p, detail),
                "FieldValueDuplicate" => error(ErrorType::Duplicate, value, String::new()),
                _ => error(ErrorType::Invalid, value, detail),
            }
        });
        if !compiled.uses_old_self && at.same.holds() {
            self.warnings.push(error.to_string());
        } else {
            self.errors.push(error);
        }
    }

    /// The text an expression makes, and whether to stop: then the text says why.
    ///
    /// Here `oldSelf` is never optional, whatever the rule says: what takes it for one fails, as upstream's does.
    fn message(&mut self, program: &Program, expression: &str, new: &Value, old: Option<&Value>) -> (Option<String>, bool) {
        let mut variables = Variables::new();
        variables.json("self", new);
        if let Some(old) = old {
            variables.json("oldSelf", old);
        }
        let text = match program.eval(&variables, self.budget) {
            Ok(value) => value.as_str().map(|text| text.trim().to_owned()),
            Err(error) => match error.kind {
                ErrorKind::Evaluation => None,
                ErrorKind::CallLimit => {
                    let quoted = go_quote(expression);
                    let text =
                        format!("no further validation rules will be run due to call cost exceeds limit for messageExpression: {quoted}");
                    return (Some(text), true);
                }
                ErrorKind::BudgetExhausted => {
                    const OUT: &str =
                        "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
                    return (Some(OUT.to_owned()), true);
                }
            },
        };
        (text.filter(|text| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')), false)
    }
}

/// How errors name a rule: by its message, or its text.
fn shown(compiled: &Compiled) -> &str {
    let rule = &compiled.rule;
    if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() }
}
