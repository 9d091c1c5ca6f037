//! What an evaluation is given: values by name, an authorizer, fields prepared beforehand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::budget::Budget;
use crate::error::EvalError;
use crate::value::Value;

/// Values by the names the environment declares. Trees are borrowed.
#[derive(Default)]
pub struct Variables<'a> {
    entries: BTreeMap<&'a str, Entry<'a>>,
}

pub(crate) enum Entry<'a> {
    Json(&'a serde_json::Value),
    /// For variables declared as `Optional`.
    OptionalJson(Option<&'a serde_json::Value>),
    Value(Value<'a>),
    Prepared(Arc<Prepared<'a>>),
}

/// Fields evaluated beforehand that count, and fail, only when an expression asks for them: `variables` of a policy.
#[derive(Clone, Default)]
pub struct Prepared<'a> {
    fields: BTreeMap<String, Arc<Field<'a>>>,
}

struct Field<'a> {
    value: Result<Value<'a>, EvalError>,
    cost: u64,
    charged: AtomicBool,
}

impl<'a> Prepared<'a> {
    /// `cost` is subtracted from the budget of the first evaluation that asks for the field.
    pub fn add(&mut self, name: &str, value: Result<Value<'a>, EvalError>, cost: u64) {
        self.fields.insert(name.to_owned(), Arc::new(Field { value, cost, charged: AtomicBool::new(false) }));
    }

    pub(crate) fn field(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let field = self.fields.get(name)?;
        if !field.charged.swap(true, Ordering::Relaxed) && !budget.spend(field.cost) {
            return Some(Err(EvalError::budget()));
        }
        Some(field.value.clone())
    }
}

/// What an `authorizer` variable asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzRequest {
    /// Namespace and name, when the expression asks about a service account and not about the requester.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// Set for non-resource paths; the rest is empty then.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthzDecision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Decides for the user of a request.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, request: &AuthzRequest) -> AuthzDecision;
}

impl<'a> Variables<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    /// A JSON tree, read by the type its variable is declared with.
    pub fn json(&mut self, name: &'a str, tree: &'a serde_json::Value) {
        self.entries.insert(name, Entry::Json(tree));
    }

    /// For a variable declared as `Type::Optional`.
    pub fn optional_json(&mut self, name: &'a str, tree: Option<&'a serde_json::Value>) {
        self.entries.insert(name, Entry::OptionalJson(tree));
    }

    pub fn value(&mut self, name: &'a str, value: Value<'a>) {
        self.entries.insert(name, Entry::Value(value));
    }

    pub fn null(&mut self, name: &'a str) {
        self.value(name, Value::Null);
    }

    pub fn prepared(&mut self, name: &'a str, fields: Prepared<'a>) {
        self.entries.insert(name, Entry::Prepared(Arc::new(fields)));
    }

    /// For a variable declared as [`crate::Type::RESOURCE_CHECK`]: `authorizer.requestResource`.
    pub fn resource_check(&mut self, name: &'a str, authorizer: &'a dyn Authorizer, request: AuthzRequest) {
        self.value(name, Value::Opaque(crate::opaque::Opaque::ResourceCheck { authorizer, request: request.into() }));
    }

    /// For a variable declared as [`crate::Type::AUTHORIZER`].
    pub fn authorizer(&mut self, name: &'a str, authorizer: &'a dyn Authorizer) {
        self.value(name, Value::authorizer(authorizer));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.get(name)
    }
}
