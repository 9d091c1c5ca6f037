//! What the expressions of a policy see, and how one is evaluated with the policy's variables.

use std::collections::BTreeSet;

use cel::{AuthzRequest, Budget, EvalError, Prepared, Program, RUNTIME_BUDGET, Value as CelValue, Variables};
use machinery::status::StatusError;
use serde_json::Value;

use super::definition::{Compiled, Definition};
use crate::admission::authorizer::Requester;
use crate::admission::matching::{self, Matched};
use crate::admission::{Operation, Request, review};

/// One request, as a policy sees it in the version it matched.
pub struct Inputs {
    pub object: Value,
    pub old: Value,
    pub request: Value,
    pub namespace: Value,
    pub params: Value,
    resource: AuthzRequest,
}

impl Inputs {
    pub async fn new(request: &Request<'_>, matched: &Matched, value: &Value, old: Option<&Value>) -> Result<Self, StatusError> {
        let old = old.filter(|_| request.operation != Operation::Create).unwrap_or(&Value::Null);
        let object = if request.operation == Operation::Delete { Value::Null } else { matching::shown(request, matched, value).await? };
        let resource = AuthzRequest {
            group: matched.resource.group.clone(),
            resource: matched.resource.resource.clone(),
            subresource: request.subresource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            ..AuthzRequest::default()
        };
        Ok(Self {
            object,
            old: matching::shown(request, matched, old).await?,
            request: review::request(request, matched, ""),
            namespace: namespace_of(request).await?,
            params: Value::Null,
            resource,
        })
    }

    /// Everything, by name. Environments decide what of it an expression may use.
    pub fn variables<'a>(&'a self, requester: &'a Requester<'_>) -> Variables<'a> {
        let mut out = Variables::new();
        out.json("object", &self.object);
        out.json("oldObject", &self.old);
        out.json("request", &self.request);
        out.json("namespaceObject", &self.namespace);
        out.json("params", &self.params);
        out.authorizer("authorizer", requester);
        out.resource_check("authorizer.requestResource", requester, self.resource.clone());
        out
    }
}

/// The namespace the object lies in; null for what lies in none, and for namespaces themselves.
async fn namespace_of(request: &Request<'_>) -> Result<Value, StatusError> {
    let own = request.resource.group.is_empty() && request.resource.kind == "Namespace";
    if own || request.namespace.is_empty() {
        return Ok(Value::Null);
    }
    let found = request.api.read_kind("", "Namespace", "", request.namespace).await?;
    let missing = || StatusError::not_found(&machinery::gvk::GroupResource::new("", "namespaces"), request.namespace);
    found.ok_or_else(missing)
}

/// Evaluates the expressions of one policy, which share variables.
pub struct Evaluation<'a> {
    definition: &'a Definition,
    inputs: &'a Inputs,
    requester: &'a Requester<'a>,
    prepared: Prepared<'a>,
    done: BTreeSet<&'a str>,
}

impl<'a> Evaluation<'a> {
    pub fn new(definition: &'a Definition, inputs: &'a Inputs, requester: &'a Requester<'a>) -> Self {
        Self { definition, inputs, requester, prepared: Prepared::default(), done: BTreeSet::new() }
    }

    pub fn eval(&mut self, program: &'a Program, budget: &mut Budget) -> Result<CelValue<'a>, EvalError> {
        self.prepare(program);
        let mut variables = self.inputs.variables(self.requester);
        variables.prepared("variables", self.prepared.clone());
        program.eval(&variables, budget)
    }

    /// Evaluates the variables an expression names, and those that they name. Their costs wait until they are asked for.
    fn prepare(&mut self, program: &'a Program) {
        if !program.uses("variables") {
            return;
        }
        let definition = self.definition;
        let named = program.fields_of("variables");
        for (name, compiled) in &definition.variables {
            let wanted = named.as_ref().is_none_or(|fields| fields.contains(name));
            if !wanted || !self.done.insert(name) {
                continue;
            }
            match compiled {
                Err(why) => self.prepared.add(name, Err(EvalError::new(why.clone())), 0),
                Ok(program) => {
                    let mut budget = Budget::new(RUNTIME_BUDGET);
                    let value = self.eval(program, &mut budget);
                    self.prepared.add(name, value, budget.spent());
                }
            }
        }
    }
}

/// As upstream tells what went wrong with an expression.
pub fn failure(expression: &str, error: &EvalError) -> String {
    format!("expression '{expression}' resulted in error: {error}")
}

/// The compiled program, or what to say instead.
pub fn ready(compiled: &Compiled) -> Result<&Program, String> {
    compiled.as_ref().map_err(Clone::clone)
}
