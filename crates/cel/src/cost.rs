//! What an expression costs at least and at most, before it runs: cel-go's `checker.Cost` with Kubernetes' estimates of its
//! libraries. CRDs are accepted by these numbers. Called by `Program::estimated_cost`.

mod calls;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{ACCU, Expr, Fold, Literal, Node};
use crate::budget::{Estimate, SizeEstimator};
use crate::checker::Findings;
use crate::eval::costs::{LIST, MAP, STRUCT, times};
use crate::types::Type;

pub(crate) fn estimate(expr: &Expr, found: &Findings, sizes: &dyn SizeEstimator) -> Estimate {
    let mut coster =
        Coster { found, sizes, paths: BTreeMap::new(), locals: Vec::new(), computed: BTreeMap::new(), entries: BTreeMap::new() };
    coster.cost(expr)
}

const UNKNOWN: Estimate = Estimate { min: 0, max: u64::MAX };

impl Estimate {
    pub(crate) const fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn by(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: times(self.min, factor), max: times(self.max, factor) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sizes of what a list or map holds.
#[derive(Clone, Copy)]
struct EntrySize {
    list: bool,
    key: Estimate,
    value: Estimate,
}

struct Local {
    name: Arc<str>,
    path: Vec<String>,
    size: Option<Estimate>,
    entry: Option<EntrySize>,
}

pub(crate) struct Coster<'f> {
    found: &'f Findings,
    sizes: &'f dyn SizeEstimator,
    /// By expression id; from a variable on.
    paths: BTreeMap<usize, Vec<String>>,
    locals: Vec<Local>,
    computed: BTreeMap<usize, Estimate>,
    entries: BTreeMap<usize, EntrySize>,
}

/// What is known of an argument.
struct Arg<'e> {
    expr: &'e Expr,
    path: Vec<String>,
    of: Type,
    size: Option<Estimate>,
}

impl Coster<'_> {
    fn cost(&mut self, expr: &Expr) -> Estimate {
        match &expr.node {
            Node::Literal(_) | Node::Broken => Estimate::fixed(0),
            Node::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.to_string()], |l| l.path.clone());
                self.paths.insert(expr.id, path);
                Estimate::fixed(1)
            }
            Node::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Node::Call { .. } => self.call(expr),
            Node::List { items, .. } => {
                let (mut sum, mut item) = (Estimate::fixed(LIST), Estimate { min: u64::MAX, max: 0 });
                if items.is_empty() {
                    item.min = 0;
                }
                for e in items {
                    sum = sum.plus(self.cost(e));
                    item = item.union(self.size_or_unknown(e));
                }
                self.entries.insert(expr.id, EntrySize { list: true, key: Estimate::fixed(1), value: item });
                sum
            }
            Node::Map(_) => self.map(expr),
            Node::Struct { fields, .. } => fields.iter().fold(Estimate::fixed(STRUCT), |sum, field| sum.plus(self.cost(&field.value))),
            Node::Fold(fold) if fold.is_bind() => self.bind(expr, fold),
            Node::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) -> Estimate {
        // Names with dots are constants.
        if self.found.names.contains_key(&expr.id) {
            self.paths.insert(expr.id, vec![expr.qualified_name().unwrap_or_default()]);
            return Estimate::fixed(1);
        }
        let mut sum = self.cost(operand);
        if test {
            return sum;
        }
        if matches!(self.found.types[operand.id], Type::Map(_) | Type::Object(_) | Type::Param(_)) {
            sum = sum.plus(Estimate::fixed(1));
        }
        let mut path = self.path(operand);
        path.push(field.to_owned());
        self.paths.insert(expr.id, path);
        sum
    }

    fn map(&mut self, expr: &Expr) -> Estimate {
        let Node::Map(entries) = &expr.node else { return Estimate::fixed(0) };
        let empty = Estimate { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
        let (mut sum, mut key, mut value) = (Estimate::fixed(MAP), empty, empty);
        for entry in entries {
            sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            key = key.union(self.size_or_unknown(&entry.key));
            value = value.union(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(expr.id, EntrySize { list: false, key, value });
        sum
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> Estimate {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        self.copy_sizes(expr, &fold.result);
        sum
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Estimate {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        let inner = self.locals.len();
        let entry = self.entry_size(&fold.range);
        let list = entry.map_or_else(|| matches!(self.found.types[fold.range.id], Type::List(_)), |e| e.list);
        let path = self.path(&fold.range);
        let mut push = |name: &Arc<str>, part: &str, size: Option<Estimate>| {
            let mut path = path.clone();
            path.push(part.to_owned());
            self.locals.push(Local { name: name.clone(), path, size, entry: None });
        };
        match &fold.var2 {
            Some(var2) => {
                push(&fold.var, if list { "@indices" } else { "@keys" }, entry.map(|e| e.key));
                push(var2, if list { "@items" } else { "@values" }, entry.map(|e| e.value));
            }
            None if list => push(&fold.var, "@items", entry.map(|e| e.value)),
            None => push(&fold.var, "@keys", entry.map(|e| e.key)),
        }
        let turn = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(inner);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        match fold.init.node {
            Node::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.computed.insert(expr.id, size);
                }
            }
            Node::List { .. } | Node::Map(_) => {
                self.computed.insert(expr.id, count);
                if let Some(entry) = self.entry_size(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        sum.plus(count.by(turn))
    }

    fn push_value(&mut self, name: &Arc<str>, value: &Expr) {
        let (path, size, entry) = (self.path(value), self.size(value), self.entry_size(value));
        self.locals.push(Local { name: name.clone(), path, size, entry });
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|l| *l.name == *name)
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Node::Ident(name) = &expr.node
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn arg<'e>(&mut self, expr: &'e Expr) -> Arg<'e> {
        let mut path = self.path(expr);
        if path.first().is_some_and(|p| p == ACCU) {
            path.clear();
        }
        Arg { expr, path, of: self.found.types[expr.id].clone(), size: self.size(expr) }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to.id, size);
        }
        if let Some(entry) = self.entry_size(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Estimate {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Estimate> {
        if let Some(size) = self.computed.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Estimate::fixed(size));
        }
        let path = self.path(expr);
        if let Some(size) = self.known(&path) {
            self.computed.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(&self.found.types[expr.id]) {
            return Some(Estimate::fixed(1));
        }
        match &expr.node {
            Node::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    /// What the caller knows of the inputs.
    fn known(&self, path: &[String]) -> Option<Estimate> {
        if path.is_empty() || path.first().is_some_and(|p| p == ACCU) {
            return None;
        }
        self.sizes.max_size(path).map(|max| Estimate { min: 0, max })
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.node {
            Node::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.node {
        Node::Literal(Literal::String(s)) => s.chars().count() as u64,
        Node::Literal(Literal::Bytes(b)) => b.len() as u64,
        Node::Literal(_) => 1,
        Node::List { items, .. } => items.len() as u64,
        Node::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
