//! One schema's own rules, compiled: programs, what each costs at most, and what is wrong with them.

use cel::{Env, Program, Type};
use machinery::structural::{Rule, Schema};

use super::declare::Decl;
use crate::apiextensions::field_path::field_path;

/// One of `x-kubernetes-validations`.
pub struct Compiled {
    pub rule: Rule,
    /// Why there is no program.
    pub program: Result<Program, String>,
    pub uses_old_self: bool,
    pub message: Option<Result<Program, String>>,
    /// `fieldPath`, as a field path.
    pub field_path: String,
}

/// The rules of a schema node, and what they may speak of. `None` where expressions can know nothing of the value.
pub struct Expressions {
    pub decl: Decl,
    pub rules: Vec<Compiled>,
}

impl Expressions {
    pub fn of(schema: &Schema, root: bool) -> Option<Self> {
        let decl = Decl::of(schema, root)?;
        let rules = schema.rules.iter().map(|rule| Compiled::new(rule, schema, &decl)).collect();
        Some(Self { decl, rules })
    }
}

impl Compiled {
    fn new(rule: &Rule, schema: &Schema, decl: &Decl) -> Self {
        let optional = rule.optional_old_self == Some(true);
        let old = if optional { Type::optional(decl.of.clone()) } else { decl.of.clone() };
        let env = Env::new().variable("self", decl.of.clone()).variable("oldSelf", old);
        let program = match env.compile(&rule.rule) {
            Ok(program) if *program.output_type() == Type::Bool => Ok(program),
            Ok(_) => Err("cel expression must evaluate to a bool".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let message = Some(rule.message_expression.as_str()).filter(|text| !text.is_empty()).map(|text| match env.compile(text) {
            Ok(program) if *program.output_type() == Type::String => Ok(program),
            Ok(_) => Err("messageExpression must evaluate to a string".to_owned()),
            Err(error) => Err(format!("messageExpression {error}")),
        });
        let path = Some(rule.field_path.as_str()).filter(|path| !path.is_empty());
        Self {
            uses_old_self: program.as_ref().is_ok_and(|p| p.uses("oldSelf")),
            // A rule that does not compile says nothing of its message.
            message: message.filter(|_| program.is_ok()),
            program,
            field_path: path.and_then(|path| field_path(path, schema, true).ok()).map(|found| found.text).unwrap_or_default(),
            rule: rule.clone(),
        }
    }

    /// The most one evaluation of the rule costs.
    pub fn cost_max(&self, decl: &Decl) -> u64 {
        self.program.as_ref().map_or(0, |program| cost_max(program, decl))
    }

    pub fn message_cost_max(&self, decl: &Decl) -> Option<u64> {
        self.message.as_ref()?.as_ref().ok().map(|program| cost_max(program, decl))
    }
}

fn cost_max(program: &Program, decl: &Decl) -> u64 {
    program.estimated_cost(&|path: &[String]| decl.elements_max(path)).max
}
