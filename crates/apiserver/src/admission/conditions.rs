//! `matchConditions` of webhooks and policies (upstream's `matchconditions`): CEL expressions that must all be true; one that is
//! false decides, whatever fails beside it. What they see is the caller's to say.

use cel::{Budget, Env, MATCH_CONDITIONS_BUDGET, Program, Type, Value as CelValue, Variables};
use kinds::expressions;
use machinery::object::str_at;
use serde_json::Value;

pub const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// Compiled conditions, in order.
#[derive(Default)]
pub struct Conditions(Vec<(String, Result<Program, String>)>);

impl Conditions {
    pub fn compile(list: &[Value], env: &Env) -> Self {
        let compile = |condition: &Value| {
            let text = str_at(condition, "expression").to_owned();
            let program = expressions::compile(env, &text, &[Type::Bool]).map_err(|why| format!("compilation error: {why}"));
            (text, program)
        };
        Self(list.iter().map(compile).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all are true, or why that cannot be said. As upstream has it, conditions do not see the namespace.
    pub fn hold(&self, mut variables: Variables<'_>) -> Result<bool, String> {
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
                Err(error) => errors.push(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
