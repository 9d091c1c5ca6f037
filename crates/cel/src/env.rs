//! Environments, which know the variables an expression may use, and compiled programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::{Budget, Estimate, SizeEstimator};
use crate::error::{CompileError, EvalError};
use crate::types::{ObjectType, Type};
use crate::value::Value;
use crate::variables::Variables;

/// What an expression may speak of: all libraries, and declared variables. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub(crate) variables: BTreeMap<String, Type>,
    pub(crate) objects: BTreeMap<String, Arc<ObjectType>>,
    pub(crate) mutation: bool,
}

/// A checked expression, ready to be evaluated any number of times, from any thread.
#[derive(Debug)]
pub struct Program {
    output: Type,
}

impl Env {
    /// Every library of Kubernetes v1.36, no variables.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// A type that expressions may construct: `Name{field: value}`.
    pub fn object_type(mut self, of: Arc<ObjectType>) -> Self {
        self.objects.insert(of.name.clone(), of);
        self
    }

    /// The types of mutations: `Object{...}`, `Object.spec{...}` with fields of any type, and `JSONPatch{op, path, from, value}`.
    pub fn mutation_types(mut self) -> Self {
        self.mutation = true;
        self
    }

    pub fn compile(&self, _text: &str) -> Result<Program, CompileError> {
        Err(CompileError { issues: "ERROR: <input>:1:1: expressions cannot be compiled yet".to_owned() })
    }
}

impl Program {
    pub fn output_type(&self) -> &Type {
        &self.output
    }

    /// Whether the expression speaks of a variable, as a rule of `oldSelf` does.
    pub fn uses(&self, _variable: &str) -> bool {
        false
    }

    /// What evaluating it costs at least and at most, given how large its inputs can get.
    pub fn estimated_cost(&self, _sizes: &dyn SizeEstimator) -> Estimate {
        Estimate { min: 0, max: u64::MAX }
    }

    /// Fails with cel-go's texts. What it costs is subtracted from `budget`, also when it fails.
    pub fn eval<'a>(&'a self, _variables: &Variables<'a>, _budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        Err(EvalError::no_such_overload())
    }
}
