//! CEL in the configuration: compiled once, evaluated over the claims of a token, or over the user made of them.

use cel::{Budget, Env, MATCH_CONDITIONS_BUDGET, ObjectType, Program, Type, Value as Cel, Variables};
use serde_json::Value;

#[derive(Debug)]
pub struct Expression {
    text: String,
    program: Box<Program>,
    over: &'static str,
}

impl Expression {
    /// Over `claims`.
    pub fn of_claims(text: &str) -> Result<Self, String> {
        Self::compile(text, "claims", Type::map(Type::String, Type::Dyn))
    }

    /// Over `user`.
    pub fn of_user(text: &str) -> Result<Self, String> {
        let user = ObjectType::new("kubernetes.UserInfo")
            .field("username", Type::String)
            .field("uid", Type::String)
            .field("groups", Type::list(Type::String))
            .field("extra", Type::map(Type::String, Type::list(Type::String)));
        Self::compile(text, "user", Type::object(user))
    }

    fn compile(text: &str, over: &'static str, of: Type) -> Result<Self, String> {
        let program = Env::new().variable(over, of).compile(text).map_err(|e| e.to_string())?;
        Ok(Self { text: text.to_owned(), program: Box::new(program), over })
    }

    /// Whether its value can be a bool.
    pub fn may_be_bool(&self) -> bool {
        matches!(self.program.output_type(), Type::Bool | Type::Dyn)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value as a tree. Errors name no values of claims.
    pub fn eval(&self, input: &Value) -> Result<Value, String> {
        let mut variables = Variables::new();
        variables.json(self.over, input);
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let value: Cel<'_> = self.program.eval(&variables, &mut budget).map_err(|e| e.to_string())?;
        value.to_json().map_err(|e| e.to_string())
    }
}
