//! Runs the steps of a program, counting what they cost as cel-go does. Called by `Program::eval`.

pub(crate) mod costs;
mod loops;

use std::sync::Arc;

use crate::budget::Budget;
use crate::error::{ErrorKind, EvalError};
use crate::library::equal;
use crate::plan::{Call, Step};
use crate::regexes::Regexes;
use crate::types::Type;
use crate::value::{Key, Map, Struct, Value};
use crate::variables::{Entry, Variables};

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// Turns of loops and parts of trees that are compared: both may cost nothing by upstream's numbers.
const WORK_MAX: u64 = 10_000_000;

pub(crate) struct Machine<'r, 'a> {
    pub variables: &'r Variables<'a>,
    pub types: &'a std::collections::BTreeMap<String, Type>,
    pub budget: &'r mut Budget,
    pub regexes: Regexes<'a>,
    pub locals: Vec<Outcome<'a>>,
    pub cost: u64,
    pub work: u64,
}

impl<'a> Machine<'_, 'a> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.budget.call_limit() { Err(EvalError::call_limit()) } else { Ok(()) }
    }

    fn work(&mut self, amount: u64) -> Result<(), EvalError> {
        self.work = self.work.saturating_add(amount);
        if self.work > WORK_MAX { Err(EvalError::call_limit()) } else { Ok(()) }
    }

    pub fn eval(&mut self, step: &'a Step) -> Outcome<'a> {
        self.step(step, true)
    }

    /// `counted` is false for attributes that are qualifiers or branches: cel-go does not count those themselves.
    fn step(&mut self, step: &'a Step, counted: bool) -> Outcome<'a> {
        match step {
            Step::Const(value) => Ok(value.clone()),
            Step::Variable(name) => {
                self.charge(u64::from(counted))?;
                self.variable(name)
            }
            Step::Local(slot) => {
                self.charge(u64::from(counted))?;
                self.locals.get(*slot).cloned().unwrap_or_else(|| Err(EvalError::new("no such attribute(s)")))
            }
            Step::Select { operand, field, optional } => self.select(operand, field, *optional, counted),
            Step::Has { operand, field } => self.has(operand, field),
            Step::Index { operand, index, optional } => self.index(operand, index, *optional, counted),
            Step::And(sides) => self.logic(sides, false),
            Step::Or(sides) => self.logic(sides, true),
            Step::Condition(parts) => match self.step(&parts.0, true)? {
                Value::Bool(true) => self.step(&parts.1, false),
                Value::Bool(false) => self.step(&parts.2, false),
                _ => Err(EvalError::no_such_overload()),
            },
            Step::NotStrictlyFalse(inner) => {
                let value = self.step(inner, true);
                self.charge(1)?;
                match value {
                    Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
                    Err(error) if error.kind != ErrorKind::Evaluation => Err(error),
                    _ => Ok(Value::Bool(true)),
                }
            }
            Step::OptionalOr { sides, value } => self.optional_or(sides, *value),
            Step::InConst(item, list) => {
                let item = self.step(item, true)?;
                Ok(Value::Bool(list.iter().any(|other| equal(&item, other))))
            }
            Step::Call(call) => self.call(call),
            Step::List(items) => self.list(items),
            Step::Map(entries) => self.map(entries),
            Step::Struct { name, fields } => self.object(name, fields),
            Step::Fold(fold) => self.fold(fold),
        }
    }

    fn variable(&mut self, name: &str) -> Outcome<'a> {
        let Some(entry) = self.variables.get(name) else {
            return Err(EvalError::new(format!("no such attribute(s): {name}")));
        };
        let of = self.types.get(name).unwrap_or(&Type::Dyn);
        Ok(match entry {
            Entry::Json(tree) => Value::json(tree, of),
            Entry::OptionalJson(tree) => {
                let of = match of {
                    Type::Optional(inner) => inner,
                    other => other,
                };
                Value::Optional(tree.map(|t| Arc::new(Value::json(t, of))))
            }
            Entry::Value(value) => value.clone(),
            Entry::Prepared(fields) => Value::Map(Map::Prepared(fields.clone())),
        })
    }

    /// The operand of a selection: what is no attribute becomes one, which counts.
    fn operand(&mut self, operand: &'a Step, counted: bool) -> Outcome<'a> {
        let value = self.step(operand, counted);
        if !operand.is_attribute() {
            self.charge(u64::from(counted))?;
        }
        value
    }

    fn select(&mut self, operand: &'a Step, field: &str, optional: bool, counted: bool) -> Outcome<'a> {
        let value = self.operand(operand, counted);
        self.charge(1)?;
        let (value, wrapped) = match value? {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        match self.field(&value, field).transpose()? {
            Some(found) if wrapped || optional => Ok(Value::Optional(Some(Arc::new(found)))),
            Some(found) => Ok(found),
            None if wrapped || optional => Ok(Value::Optional(None)),
            None => Err(EvalError::no_such_key(field)),
        }
    }

    fn field(&mut self, value: &Value<'a>, field: &str) -> Option<Outcome<'a>> {
        match value {
            Value::Map(Map::Prepared(fields)) => fields.field(field, self.budget),
            Value::Map(map) => map.get_str(field).map(Ok),
            Value::Struct(object) => object.fields.get(field).cloned().map(Ok),
            _ => None,
        }
    }

    fn has(&mut self, operand: &'a Step, field: &str) -> Outcome<'a> {
        let value = match self.step(operand, true)? {
            Value::Optional(None) => return Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => (*inner).clone(),
            other => other,
        };
        match &value {
            Value::Map(_) | Value::Struct(_) => Ok(Value::Bool(self.field(&value, field).is_some())),
            Value::Null => Ok(Value::Bool(false)),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn index(&mut self, operand: &'a Step, index: &'a Step, optional: bool, counted: bool) -> Outcome<'a> {
        let value = self.operand(operand, counted);
        let index = self.step(index, false);
        self.charge(1)?;
        let (value, wrapped) = match value? {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        let index = index?;
        let found = match &value {
            Value::List(list) => {
                let Some(Key::Int(at)) = Key::of(&index) else {
                    let name = index.type_name();
                    return Err(EvalError::new(format!("unsupported index type '{name}' in list")));
                };
                match usize::try_from(at).ok().and_then(|at| list.get(at)) {
                    None if !(wrapped || optional) => return Err(EvalError::new(format!("index out of bounds: {at}"))),
                    found => found,
                }
            }
            Value::Map(Map::Prepared(_)) => match index.as_str() {
                Some(name) => self.field(&value, name).transpose()?,
                None => None,
            },
            Value::Map(map) => Key::of(&index).and_then(|key| map.get(&key)),
            Value::Struct(object) => index.as_str().and_then(|name| object.fields.get(name).cloned()),
            _ => None,
        };
        match found {
            found if wrapped || optional => Ok(Value::Optional(found.map(Arc::new))),
            Some(found) => Ok(found),
            None => Err(EvalError::no_such_key(shown(&index))),
        }
    }

    /// `stop` decides: the other side then does not matter, not even if it fails.
    fn logic(&mut self, sides: &'a (Step, Step), stop: bool) -> Outcome<'a> {
        let left = self.step(&sides.0, true);
        match &left {
            Ok(Value::Bool(b)) if *b == stop => return Ok(Value::Bool(stop)),
            Err(error) if error.kind != ErrorKind::Evaluation => return left,
            _ => {}
        }
        match (left, self.step(&sides.1, true)) {
            (_, Ok(Value::Bool(b))) if b == stop => Ok(Value::Bool(stop)),
            (_, Err(error)) if error.kind != ErrorKind::Evaluation => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!stop)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn optional_or(&mut self, sides: &'a (Step, Step), value: bool) -> Outcome<'a> {
        match self.step(&sides.0, true)? {
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
            Value::Optional(None) => self.step(&sides.1, true),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn call(&mut self, call: &'a Call) -> Outcome<'a> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut failed = None;
        // One or two arguments are all evaluated before a failure is passed on, more are not.
        for arg in &call.args {
            match self.step(arg, true) {
                Ok(value) => args.push(value),
                Err(error) if error.kind != ErrorKind::Evaluation || call.args.len() > 2 => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            self.charge(1)?;
            return Err(error);
        }
        let overload = match call.overload {
            Some(overload) => Some(overload),
            None => call.function.overloads.iter().find(|o| o.member == call.member && takes(&o.params, &args)),
        };
        self.work(costs::work_of(call.function.name, &args))?;
        let result = match overload {
            Some(overload) => (overload.run)(&mut self.regexes, &args),
            None => Err(EvalError::no_such_overload()),
        };
        let cost = costs::of_call(call.function.name, call.overload.map_or("", |o| o.id), &args, result.as_ref().ok());
        self.charge(cost)?;
        match result {
            Err(error) if error.message == "no such overload" && !call.function.name.contains('_') => {
                let types: Vec<String> = args.iter().map(Value::type_name).collect();
                Err(EvalError::new(format!("no such overload: {}({})", call.function.name, types.join(", "))))
            }
            result => result,
        }
    }

    fn list(&mut self, items: &'a [(Step, bool)]) -> Outcome<'a> {
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match self.step(item, true)? {
                Value::Optional(None) if *optional => {}
                Value::Optional(Some(inner)) if *optional => out.push((*inner).clone()),
                value => out.push(value),
            }
        }
        self.charge(costs::LIST)?;
        Ok(Value::list(out))
    }

    fn map(&mut self, entries: &'a [(Step, Step, bool)]) -> Outcome<'a> {
        let mut out = std::collections::BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.step(key, true)?;
            let key = Key::of(&key).ok_or_else(|| EvalError::new(format!("unsupported key type: {}", key.type_name())))?;
            let value = match self.step(value, true)? {
                Value::Optional(None) if *optional => continue,
                Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                value => value,
            };
            let shown = key.to_string();
            if out.insert(key, value).is_some() {
                return Err(EvalError::new(format!("Failed with repeated key: {shown}")));
            }
        }
        self.charge(costs::MAP)?;
        Ok(Value::Map(Map::Owned(out.into())))
    }

    fn object(&mut self, name: &Arc<str>, fields: &'a [(Arc<str>, Step, bool)]) -> Outcome<'a> {
        let mut out = std::collections::BTreeMap::new();
        for (field, value, optional) in fields {
            match self.step(value, true)? {
                Value::Optional(None) if *optional => {}
                Value::Optional(Some(inner)) if *optional => {
                    out.insert(field.clone(), (*inner).clone());
                }
                value => {
                    out.insert(field.clone(), value);
                }
            }
        }
        self.charge(costs::STRUCT)?;
        Ok(Value::Struct(Arc::new(Struct { name: name.clone(), fields: out })))
    }
}

fn shown(index: &Value<'_>) -> String {
    match Key::of(index) {
        Some(key) => key.to_string(),
        None => format!("{index:?}"),
    }
}

/// Whether values may be arguments of an overload, parameters apart.
fn takes(params: &[Type], args: &[Value<'_>]) -> bool {
    params.len() == args.len() && params.iter().zip(args).all(|(param, arg)| fits(param, arg))
}

fn fits(param: &Type, arg: &Value<'_>) -> bool {
    match (param, arg) {
        (Type::Dyn | Type::Param(_), _)
        | (Type::Map(_), Value::Map(_))
        | (Type::Optional(_), Value::Optional(_))
        | (Type::Type(_), Value::Type(_)) => true,
        // Elements tell overloads apart: the first one speaks for all.
        (Type::List(list), Value::List(items)) => items.get(0).is_none_or(|first| fits(&list.elem, &first)),
        (param, arg) => *param == arg.type_of(),
    }
}
