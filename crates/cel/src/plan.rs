//! From checked expressions to steps: names resolved to slots, calls to functions, constants folded as cel-go's optimizer
//! folds them (which its costs depend on). Called by `Env::compile`; `eval` runs the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::ast::{Entry, Expr, Fold, Literal, Node};
use crate::checker::{CallInfo, Findings, Name};
use crate::decls::{Function, Overload};
use crate::regexes::{self, Regexes};
use crate::types::Type;
use crate::value::{Key, Map, Text, Value};

#[derive(Debug)]
pub(crate) enum Step {
    Const(Value<'static>),
    Variable(Arc<str>),
    /// From the bottom of the stack.
    Local(usize),
    Select {
        operand: Box<Step>,
        field: Arc<str>,
        optional: bool,
    },
    Has {
        operand: Box<Step>,
        field: Arc<str>,
    },
    Index {
        operand: Box<Step>,
        index: Box<Step>,
        optional: bool,
    },
    And(Box<(Step, Step)>),
    Or(Box<(Step, Step)>),
    Condition(Box<(Step, Step, Step)>),
    NotStrictlyFalse(Box<Step>),
    /// `or` and, with `value`, `orValue`.
    OptionalOr {
        sides: Box<(Step, Step)>,
        value: bool,
    },
    /// Membership in a constant list.
    InConst(Box<Step>, Vec<Value<'static>>),
    Call(Box<Call>),
    List(Vec<(Step, bool)>),
    Map(Vec<(Step, Step, bool)>),
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Step, bool)>,
    },
    Fold(Box<Loop>),
}

pub(crate) struct Call {
    pub function: &'static Function,
    /// The only one that fits, if so.
    pub overload: Option<&'static Overload>,
    pub args: Vec<Step>,
    pub member: bool,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.function.name, self.args)
    }
}

#[derive(Debug)]
pub(crate) struct Loop {
    pub range: Step,
    pub two: bool,
    pub init: Step,
    pub condition: Step,
    pub step: LoopStep,
    pub result: Step,
    pub bind: bool,
}

/// Steps that grow a list or a map do it in place.
#[derive(Debug)]
pub(crate) enum LoopStep {
    Any(Step),
    Append { filter: Option<Step>, item: Step },
    Insert { filter: Option<Step>, what: Vec<Step> },
}

pub(crate) struct Planner<'f> {
    found: &'f Findings,
    locals: Vec<Arc<str>>,
    pub regexes: BTreeMap<Arc<str>, Regex>,
}

/// Conversions of constants happen here, as in cel-go.
const FOLDED: [&str; 10] = ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

impl<'f> Planner<'f> {
    pub fn new(found: &'f Findings) -> Self {
        Self { found, locals: Vec::new(), regexes: BTreeMap::new() }
    }

    pub fn plan(&mut self, expr: &Expr) -> Step {
        match &expr.node {
            Node::Literal(literal) => Step::Const(constant(literal)),
            Node::Ident(_) => self.name(expr),
            Node::Select { operand, field, test } => {
                if self.found.names.contains_key(&expr.id) {
                    return self.name(expr);
                }
                let operand = Box::new(self.plan(operand));
                if *test {
                    Step::Has { operand, field: field.clone() }
                } else {
                    Step::Select { operand, field: field.clone(), optional: false }
                }
            }
            Node::Call { target, args, .. } => self.call(expr, target.as_deref(), args),
            Node::List { items, optional } => self.list(items, optional),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => Step::Struct {
                name: name.strip_prefix('.').map_or_else(|| name.clone(), Arc::from),
                fields: fields.iter().map(|f| (f.name.clone(), self.plan(&f.value), f.optional)).collect(),
            },
            Node::Fold(fold) => self.fold(fold),
            Node::Broken => Step::Const(Value::Null),
        }
    }

    fn name(&mut self, expr: &Expr) -> Step {
        match self.found.names.get(&expr.id) {
            Some(Name::Variable(name)) => match self.locals.iter().rposition(|l| l == name) {
                Some(slot) => Step::Local(slot),
                None => Step::Variable(name.clone()),
            },
            Some(Name::Type(of)) => Step::Const(Value::Type(of.clone())),
            None => Step::Const(Value::Null),
        }
    }

    fn list(&mut self, items: &[Expr], optional: &[bool]) -> Step {
        let steps: Vec<(Step, bool)> = items.iter().zip(optional).map(|(i, o)| (self.plan(i), *o)).collect();
        let constants = steps.iter().map(|(s, optional)| match s {
            Step::Const(value) if !optional => Some(value.clone()),
            _ => None,
        });
        match constants.collect::<Option<Vec<_>>>() {
            Some(constants) => Step::Const(Value::list(constants)),
            None => Step::List(steps),
        }
    }

    fn map(&mut self, entries: &[Entry]) -> Step {
        let steps: Vec<_> = entries.iter().map(|e| (self.plan(&e.key), self.plan(&e.value), e.optional)).collect();
        let constants = steps.iter().map(|(key, value, optional)| match (key, value) {
            (Step::Const(key), Step::Const(value)) if !optional => Some((Key::of(key)?, value.clone())),
            _ => None,
        });
        match constants.collect::<Option<BTreeMap<_, _>>>() {
            Some(constants) if constants.len() == steps.len() => Step::Const(Value::Map(Map::Owned(constants.into()))),
            _ => Step::Map(steps),
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, args: &[Expr]) -> Step {
        let Some(info) = self.found.calls.get(&expr.id).cloned() else { return Step::Const(Value::Null) };
        let member = target.is_some() && !info.namespaced;
        let mut steps: Vec<Step> = target.filter(|_| member).into_iter().chain(args).map(|a| self.plan(a)).collect();
        let name = info.function.name;
        if matches!(name, "_?_:_") && steps.len() == 3 {
            let (no, yes) = (steps.pop(), steps.pop());
            if let (Some(condition), Some(yes), Some(no)) = (steps.pop(), yes, no) {
                return Step::Condition(Box::new((condition, yes, no)));
            }
        }
        if steps.len() == 2 && matches!(name, "_&&_" | "_||_" | "_[_]" | "_[?_]" | "_?._" | "or" | "orValue" | "@in") {
            return self.binary(&info, steps);
        }
        if steps.len() == 1 && name == "@not_strictly_false" {
            return Step::NotStrictlyFalse(Box::new(steps.swap_remove(0)));
        }
        self.plain(&info, member, steps)
    }

    fn plain(&mut self, info: &CallInfo, member: bool, steps: Vec<Step>) -> Step {
        let only = match info.overloads.as_slice() {
            [id] => info.function.overloads.iter().find(|o| o.id == *id),
            _ => None,
        };
        if let ("matches" | "find" | "findAll", Some(Step::Const(Value::String(pattern)))) = (info.function.name, steps.get(1))
            && let Ok(compiled) = regexes::compile(pattern)
        {
            self.regexes.insert((**pattern).into(), compiled);
        }
        if let ([Step::Const(arg)], true, Some(overload)) = (steps.as_slice(), FOLDED.contains(&info.function.name), only) {
            let none = BTreeMap::new();
            if let Ok(folded) = (overload.run)(&mut Regexes::new(&none), std::slice::from_ref(arg)) {
                return Step::Const(folded);
            }
        }
        Step::Call(Box::new(Call { function: info.function, overload: only, args: steps, member }))
    }

    fn binary(&mut self, info: &CallInfo, mut steps: Vec<Step>) -> Step {
        let (Some(right), Some(left)) = (steps.pop(), steps.pop()) else { return Step::Const(Value::Null) };
        match info.function.name {
            "_&&_" => Step::And(Box::new((left, right))),
            "_||_" => Step::Or(Box::new((left, right))),
            "_[_]" => Step::Index { operand: Box::new(left), index: Box::new(right), optional: false },
            "_[?_]" => Step::Index { operand: Box::new(left), index: Box::new(right), optional: true },
            "_?._" => match right {
                Step::Const(Value::String(field)) => Step::Select { operand: Box::new(left), field: (*field).into(), optional: true },
                _ => Step::Const(Value::Null),
            },
            "or" => Step::OptionalOr { sides: Box::new((left, right)), value: false },
            "orValue" => Step::OptionalOr { sides: Box::new((left, right)), value: true },
            _ => match right {
                Step::Const(Value::List(list)) if info.overloads == ["in_list"] => Step::InConst(Box::new(left), list.iter().collect()),
                right => self.plain(info, false, vec![left, right]),
            },
        }
    }

    fn fold(&mut self, fold: &Fold) -> Step {
        let range = self.plan(&fold.range);
        let init = self.plan(&fold.init);
        let outer = self.locals.len();
        self.locals.push(fold.accu.clone());
        let inner = self.locals.len();
        let (condition, step) = if fold.is_bind() {
            (Step::Const(Value::Bool(false)), LoopStep::Any(Step::Const(Value::Null)))
        } else {
            self.locals.push(fold.var.clone());
            self.locals.extend(fold.var2.clone());
            (self.plan(&fold.condition), self.loop_step(&fold.step, outer))
        };
        self.locals.truncate(inner);
        let result = self.plan(&fold.result);
        self.locals.truncate(outer);
        Step::Fold(Box::new(Loop { range, two: fold.var2.is_some(), init, condition, step, result, bind: fold.is_bind() }))
    }

    /// Recognises `accu + [item]` and `cel.@mapInsert(accu, ..)`, with or without a filter.
    fn loop_step(&mut self, step: &Expr, accu: usize) -> LoopStep {
        let planned = self.plan(step);
        let (filter, grow) = match planned {
            Step::Condition(parts) if matches!(parts.2, Step::Local(slot) if slot == accu) && grows(&parts.1, accu) => {
                (Some(parts.0), parts.1)
            }
            other if grows(&other, accu) => (None, other),
            other => return LoopStep::Any(other),
        };
        let Step::Call(mut call) = grow else { return LoopStep::Any(grow) };
        if call.function.name == "_+_" {
            if let Some(Step::List(mut items)) = call.args.pop()
                && let Some((item, _)) = items.pop()
            {
                return LoopStep::Append { filter, item };
            }
            return LoopStep::Any(Step::Const(Value::Null));
        }
        call.args.remove(0);
        LoopStep::Insert { filter, what: call.args }
    }
}

fn grows(step: &Step, accu: usize) -> bool {
    let Step::Call(call) = step else { return false };
    if !matches!(call.args.first(), Some(Step::Local(slot)) if *slot == accu) {
        return false;
    }
    match call.function.name {
        "_+_" => matches!(call.args.get(1), Some(Step::List(items)) if matches!(items.as_slice(), [(_, false)])),
        name => name == "cel.@mapInsert",
    }
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(s) => Value::String(Text::Shared(s.clone())),
        Literal::Bytes(b) => Value::Bytes(b.clone()),
    }
}

impl Step {
    /// Whether cel-go evaluates it as an attribute: its costs are those of its parts.
    pub fn is_attribute(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Local(_) | Self::Select { .. } | Self::Index { .. } | Self::Condition(_))
    }
}

/// Whether a variable is used anywhere.
pub(crate) fn uses(found: &Findings, variable: &str) -> bool {
    found.names.values().any(|name| matches!(name, Name::Variable(v) if **v == *variable))
}

/// Collects the fields that are selected from a variable; false if it is also used in another way.
pub(crate) fn fields_of(step: &Step, variable: &str, out: &mut BTreeSet<String>) -> bool {
    let mut all = |steps: &mut dyn Iterator<Item = &Step>| {
        let mut only = true;
        for step in steps {
            only &= fields_of(step, variable, out);
        }
        only
    };
    match step {
        Step::Const(_) | Step::Local(_) => true,
        Step::Variable(name) => **name != *variable,
        Step::Select { operand, field, .. } | Step::Has { operand, field } => {
            if matches!(&**operand, Step::Variable(name) if **name == *variable) {
                out.insert(field.to_string());
                return true;
            }
            all(&mut std::iter::once(&**operand))
        }
        Step::Index { operand, index, .. } => all(&mut [&**operand, &**index].into_iter()),
        Step::And(sides) | Step::Or(sides) | Step::OptionalOr { sides, .. } => all(&mut [&sides.0, &sides.1].into_iter()),
        Step::Condition(parts) => all(&mut [&parts.0, &parts.1, &parts.2].into_iter()),
        Step::NotStrictlyFalse(inner) | Step::InConst(inner, _) => all(&mut std::iter::once(&**inner)),
        Step::Call(call) => all(&mut call.args.iter()),
        Step::List(items) => all(&mut items.iter().map(|(item, _)| item)),
        Step::Map(entries) => all(&mut entries.iter().flat_map(|(key, value, _)| [key, value])),
        Step::Struct { fields, .. } => all(&mut fields.iter().map(|(_, value, _)| value)),
        Step::Fold(fold) => {
            let steps = match &fold.step {
                LoopStep::Any(step) => vec![step],
                LoopStep::Append { filter, item } => filter.iter().chain([item]).collect(),
                LoopStep::Insert { filter, what } => filter.iter().chain(what).collect(),
            };
            all(&mut [&fold.range, &fold.init, &fold.condition, &fold.result].into_iter().chain(steps))
        }
    }
}

/// The type of an expression.
pub(crate) fn output(found: &Findings, expr: &Expr) -> Type {
    found.types[expr.id].clone()
}
