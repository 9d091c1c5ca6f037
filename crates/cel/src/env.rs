//! Environments, which know the variables an expression may use, and compiled programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::ast::{Expr, Literal, Node};
use crate::budget::{Budget, Estimate, SizeEstimator};
use crate::checker::{self, Findings};
use crate::cost;
use crate::error::{CompileError, EvalError};
use crate::eval::Machine;
use crate::parser;
use crate::plan::{self, Planner, Step};
use crate::regexes::{self, Regexes};
use crate::source::Source;
use crate::time;
use crate::types::Type;
use crate::value::Value;
use crate::variables::Variables;

/// What an expression may speak of: all libraries, and declared variables. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub(crate) variables: BTreeMap<String, Type>,
    pub(crate) mutation: bool,
    pub(crate) bindings: bool,
}

/// A checked expression, ready to be evaluated any number of times, from any thread.
pub struct Program {
    output: Type,
    expr: Expr,
    found: Findings,
    step: Step,
    regexes: BTreeMap<Arc<str>, Regex>,
    variables: BTreeMap<String, Type>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({}: {:?})", self.output, self.step)
    }
}

impl Env {
    /// Every library that upstream's base environment has in v1.36, no variables.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// The types of mutations: `Object{...}`, `Object.spec{...}` with fields of any type, and `JSONPatch{op, path, from, value}`;
    /// and `jsonpatch.escapeKey`.
    pub fn mutation_types(mut self) -> Self {
        self.mutation = true;
        self
    }

    /// `cel.bind(x, value, expression)`, which only device selectors have.
    pub fn bindings(mut self) -> Self {
        self.bindings = true;
        self
    }

    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let mut source = Source::new(text);
        let Some((expr, ids)) = parser::parse(&mut source, self.bindings) else { return Err(source.error()) };
        let found = checker::check(self, &mut source, &expr, ids);
        if !source.failed() {
            literals(&expr, &mut source);
        }
        if source.failed() {
            return Err(source.error());
        }
        let mut planner = Planner::new(&found);
        let step = planner.plan(&expr);
        let regexes = planner.regexes;
        let variables = self.variables.iter().filter(|(name, _)| plan::uses(&found, name));
        let variables = variables.map(|(name, of)| (name.clone(), of.clone())).collect();
        Ok(Program { output: plan::output(&found, &expr), expr, found, step, regexes, variables })
    }
}

/// Literals that can never be converted, as upstream's validators of the tree find them.
fn literals(expr: &Expr, source: &mut Source<'_>) {
    if let Node::Call { function, args, .. } = &expr.node
        && let Some(Expr { at, node: Node::Literal(Literal::String(text)), .. }) = args.first()
    {
        let bad = match &**function {
            "duration" => machinery::duration::parse(text).is_err(),
            "timestamp" => time::parse_timestamp(text).is_none(),
            "matches" => regexes::compile(text).is_err(),
            _ => false,
        };
        if bad {
            source.report(*at, format!("invalid {function} argument"));
        }
    }
    match &expr.node {
        Node::Literal(_) | Node::Ident(_) | Node::Broken => {}
        Node::Select { operand, .. } => literals(operand, source),
        Node::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).for_each(|e| literals(e, source)),
        Node::List { items, .. } => items.iter().for_each(|e| literals(e, source)),
        Node::Map(entries) => entries.iter().for_each(|e| {
            literals(&e.key, source);
            literals(&e.value, source);
        }),
        Node::Struct { fields, .. } => fields.iter().for_each(|f| literals(&f.value, source)),
        Node::Fold(f) => [&f.range, &f.init, &f.condition, &f.step, &f.result].into_iter().for_each(|e| literals(e, source)),
    }
}

impl Program {
    pub fn output_type(&self) -> &Type {
        &self.output
    }

    /// Whether the expression speaks of a variable, as a rule of `oldSelf` does.
    pub fn uses(&self, variable: &str) -> bool {
        plan::uses(&self.found, variable)
    }

    /// Which fields of a variable the expression names, as in `variables.x`; `None` if it uses the variable in another way.
    pub fn fields_of(&self, variable: &str) -> Option<BTreeSet<String>> {
        let mut out = BTreeSet::new();
        plan::fields_of(&self.step, variable, &mut out).then_some(out)
    }

    /// What evaluating it costs at least and at most, given how large its inputs can get.
    pub fn estimated_cost(&self, sizes: &dyn SizeEstimator) -> Estimate {
        cost::estimate(&self.expr, &self.found, sizes)
    }

    /// Fails with cel-go's texts. What it costs is subtracted from `budget`, also when it fails.
    pub fn eval<'a>(&'a self, variables: &Variables<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        let mut machine = Machine {
            variables,
            types: &self.variables,
            budget,
            regexes: Regexes::new(&self.regexes),
            locals: Vec::new(),
            cost: 0,
            work: 0,
        };
        let result = machine.eval(&self.step);
        let cost = machine.cost;
        if budget.spend(cost) { result } else { Err(EvalError::budget()) }
    }
}
