//! Loops, which macros over collections are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{ErrorKind, EvalError};
use crate::eval::{Machine, Outcome, costs};
use crate::library::{LIST_MAX, bounded, insert_into};
use crate::plan::{Loop, LoopStep, Step};
use crate::value::{Key, List, Map, Value};

impl<'a> Machine<'_, 'a> {
    pub(super) fn fold(&mut self, fold: &'a Loop) -> Outcome<'a> {
        let slot = self.locals.len();
        let out = self.looped(fold, slot);
        self.locals.truncate(slot);
        out
    }

    fn looped(&mut self, fold: &'a Loop, slot: usize) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        if let Err(error) = &init
            && error.kind != ErrorKind::Evaluation
        {
            return init;
        }
        self.locals.push(init);
        if fold.bind {
            return self.eval(&fold.result);
        }
        match range {
            Value::List(list) => self.over_list(fold, slot, &list)?,
            Value::Map(map) => self.over_map(fold, slot, &map)?,
            other => return Err(EvalError::new(format!("got '{}', expected iterable type", other.type_name()))),
        }
        self.locals.truncate(slot + 1);
        self.eval(&fold.result)
    }

    fn over_list(&mut self, fold: &'a Loop, slot: usize, list: &List<'a>) -> Result<(), EvalError> {
        for (at, item) in list.iter().enumerate() {
            let index = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
            let more = if fold.two { self.once(fold, slot, index, Some(item)) } else { self.once(fold, slot, item, None) };
            if !more? {
                break;
            }
        }
        Ok(())
    }

    fn over_map(&mut self, fold: &'a Loop, slot: usize, map: &Map<'a>) -> Result<(), EvalError> {
        for key in map.keys() {
            let value = if fold.two { map.get(&key) } else { None };
            if !self.once(fold, slot, key.value(), value)? {
                break;
            }
        }
        Ok(())
    }

    /// One turn; whether there may be more.
    fn once(&mut self, fold: &'a Loop, slot: usize, first: Value<'a>, second: Option<Value<'a>>) -> Result<bool, EvalError> {
        self.work(1)?;
        self.locals.truncate(slot + 1);
        self.locals.push(Ok(first));
        self.locals.extend(second.map(Ok));
        if !matches!(self.eval(&fold.condition)?, Value::Bool(true)) {
            return Ok(false);
        }
        match &fold.step {
            LoopStep::Any(step) => {
                let next = self.eval(step);
                if let Err(error) = &next
                    && error.kind != ErrorKind::Evaluation
                {
                    return Err(error.clone());
                }
                self.locals[slot] = next;
            }
            LoopStep::Append { filter, item } => {
                if self.wanted(filter.as_ref())? {
                    let item = self.eval(item)?;
                    self.charge(costs::LIST + 2)?;
                    self.append(slot, item)?;
                }
            }
            LoopStep::Insert { filter, what } => {
                if self.wanted(filter.as_ref())? {
                    let what = what.iter().map(|w| self.eval(w)).collect::<Result<Vec<_>, _>>()?;
                    self.charge(2)?;
                    self.insert(slot, &what)?;
                }
            }
        }
        Ok(true)
    }

    fn wanted(&mut self, filter: Option<&'a Step>) -> Result<bool, EvalError> {
        match filter.map(|f| self.eval(f)).transpose()? {
            None => Ok(true),
            Some(Value::Bool(b)) => Ok(b),
            Some(_) => Err(EvalError::no_such_overload()),
        }
    }

    fn append(&mut self, slot: usize, item: Value<'a>) -> Result<(), EvalError> {
        let Ok(Value::List(List::Owned(items))) = &mut self.locals[slot] else { return Err(EvalError::no_such_overload()) };
        let items = Arc::make_mut(items);
        bounded(items.len() + 1, LIST_MAX)?;
        items.push(item);
        Ok(())
    }

    fn insert(&mut self, slot: usize, what: &[Value<'a>]) -> Result<(), EvalError> {
        let Ok(Value::Map(Map::Owned(entries))) = &mut self.locals[slot] else { return Err(EvalError::no_such_overload()) };
        let entries: &mut BTreeMap<Key, Value<'a>> = Arc::make_mut(entries);
        insert_into(entries, what)
    }
}
