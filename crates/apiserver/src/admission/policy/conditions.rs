//! `matchConditions` of policies (upstream's `matchconditions`): all must be true; one that is false decides, whatever fails
//! beside it.

use cel::{Budget, Env, MATCH_CONDITIONS_BUDGET, Type, Value as CelValue};
use kinds::expressions;
use machinery::object::str_at;
use serde_json::Value;

use super::definition::Compiled;
use super::inputs::{Inputs, OUT_OF_BUDGET, failure};
use crate::admission::authorizer::Requester;

pub struct Conditions(Vec<(String, Compiled)>);

impl Conditions {
    pub fn compile(list: &[Value], env: &Env) -> Self {
        let compile = |condition: &Value| {
            let text = str_at(condition, "expression").to_owned();
            let program = expressions::compile(env, &text, &[Type::Bool]).map_err(|why| format!("compilation error: {why}"));
            (text, program)
        };
        Self(list.iter().map(compile).collect())
    }

    /// Whether all are true, or why that cannot be said.
    pub fn hold(&self, inputs: &Inputs, requester: &Requester<'_>) -> Result<bool, String> {
        let mut variables = inputs.variables(requester);
        // As upstream has it, conditions do not see the namespace.
        variables.null("namespaceObject");
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut errors = Vec::new();
        for (text, program) in &self.0 {
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
                    errors.push(OUT_OF_BUDGET.to_owned());
                    break;
                }
                Err(error) => errors.push(failure(text, &error)),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
