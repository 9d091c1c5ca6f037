//! `matchConditions`: CEL expressions that must all be true for a webhook to be called (upstream's `matchconditions`).

use cel::{AuthzRequest, Budget, MATCH_CONDITIONS_BUDGET, Program, Value as CelValue, Variables};
use kinds::expressions::{self, Scope};
use machinery::object::str_at;
use serde_json::Value;

use crate::admission::Request;
use crate::admission::authorizer::Requester;

/// Compiled conditions, in order.
pub struct MatchConditions {
    conditions: Vec<(String, Result<Program, String>)>,
    /// Errors skip the webhook instead of failing the request.
    fails_open: bool,
}

impl MatchConditions {
    pub fn compile(list: &[Value], fails_open: bool) -> Self {
        if list.is_empty() {
            return Self { conditions: Vec::new(), fails_open };
        }
        let env = expressions::admission(Scope { authorizer: true, ..Scope::default() });
        let compile = |condition: &Value| {
            let text = str_at(condition, "expression").to_owned();
            let program = env.compile(&text).map_err(|e| format!("compilation error: {e}"));
            (text, program)
        };
        Self { conditions: list.iter().map(compile).collect(), fails_open }
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether all are true. One that is false decides, whatever fails beside it; a failure is an error or, where the
    /// webhook fails open, means no.
    pub async fn matches(&self, request: &Request<'_>, about: &Value, object: &Value, old: &Value) -> Result<bool, String> {
        let authorizer = Requester::new(request);
        loop {
            let judged = self.judge(&authorizer, about, object, old);
            if !authorizer.settle().await {
                return judged;
            }
        }
    }

    fn judge(&self, authorizer: &Requester<'_>, about: &Value, object: &Value, old: &Value) -> Result<bool, String> {
        let mut variables = Variables::new();
        variables.json("object", object);
        variables.json("oldObject", old);
        variables.json("request", about);
        variables.json("namespaceObject", &Value::Null);
        variables.authorizer("authorizer", authorizer);
        variables.resource_check("authorizer.requestResource", authorizer, asked_for(about));
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut errors = Vec::new();
        for (text, program) in &self.conditions {
            let program = match program {
                Ok(program) => program,
                Err(why) => {
                    errors.push(why.clone());
                    continue;
                }
            };
            match program.eval(&variables, &mut budget) {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(format!("expression '{text}' resulted in error: must evaluate to bool")),
                Err(_) if budget.exhausted() => {
                    errors.push("validation failed due to running out of cost budget, no further validation rules will be run".to_owned());
                    break;
                }
                Err(error) => errors.push(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            _ if self.fails_open => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// What `authorizer.requestResource` asks about.
fn asked_for(about: &Value) -> AuthzRequest {
    let text = |path: &str| str_at(about, path).to_owned();
    AuthzRequest {
        group: text("resource.group"),
        resource: text("resource.resource"),
        subresource: text("subResource"),
        namespace: text("namespace"),
        name: text("name"),
        ..AuthzRequest::default()
    }
}
