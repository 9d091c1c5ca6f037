//! A policy and its bindings, read once: selectors parsed, expressions compiled.

use std::sync::Arc;

use cel::{Env, Program, Type};
use kinds::expressions::{self, Scope};
use machinery::labels::{Selector, from_label_selector};
use machinery::object::str_at;
use serde_json::{Value, json};

use crate::admission::Request;
use crate::admission::conditions::Conditions;
use crate::admission::matching::{self, Matched, Rule};
use machinery::status::StatusError;

/// What is compiled, or why it is not.
pub type Compiled = Result<Program, String>;

/// What a policy or a binding is about.
pub struct Match {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

impl Match {
    fn parse(resources: &Value) -> Self {
        let rules = |key: &str| list(resources, key).iter().map(Rule::parse).collect();
        let everything = json!({});
        let selector = |key: &str| {
            let given = resources.get(key).filter(|s| !s.is_null()).unwrap_or(&everything);
            from_label_selector(Some(given)).unwrap_or_else(|_| Selector::nothing())
        };
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: str_at(resources, "matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// Whether the request is matched, and as which version of its resource. Without rules everything is.
    pub async fn find(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<Option<Matched>, StatusError> {
        if matching::find(&self.excluded, self.equivalent, request).is_some() {
            return Ok(None);
        }
        let own = || Matched { resource: request.gvr(), kind: request.kind.clone(), converted: false };
        let found = if self.rules.is_empty() { Some(own()) } else { matching::find(&self.rules, self.equivalent, request) };
        let Some(found) = found else { return Ok(None) };
        let selected = matching::selected(request, &self.namespaces, &self.objects, value, old).await?;
        Ok(selected.then_some(found))
    }
}

pub fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

pub struct Validation {
    pub expression: String,
    pub program: Compiled,
    pub message: String,
    pub message_program: Option<Compiled>,
    pub reason: String,
}

pub struct AuditAnnotation {
    pub key: String,
    pub expression: String,
    pub program: Compiled,
}

pub struct Mutation {
    pub json_patch: bool,
    pub expression: String,
    pub program: Compiled,
}

/// Group, version and kind of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

/// A policy of either kind.
pub struct Definition {
    pub name: String,
    pub constraints: Match,
    pub conditions: Conditions,
    pub variables: Vec<(String, Compiled)>,
    pub validations: Vec<Validation>,
    pub audit: Vec<AuditAnnotation>,
    pub mutations: Vec<Mutation>,
    pub param_kind: Option<ParamKind>,
    /// `failurePolicy: Ignore`.
    pub fails_open: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvocable: bool,
}

impl Definition {
    pub fn parse(policy: &Value, mutating: bool) -> Self {
        let nothing = json!({});
        let spec = policy.get("spec").unwrap_or(&nothing);
        let scope = Scope { authorizer: true, patches: mutating, params: false };
        let (env, variables) = expressions::policy(spec, scope);
        let (messages, _) = expressions::policy(spec, Scope::default());
        let variable = |(name, program): expressions::Variable| (name, program.map_err(|why| format!("compilation error: {why}")));
        let param_kind = spec
            .get("paramKind")
            .filter(|k| k.is_object())
            .map(|kind| ParamKind { api_version: str_at(kind, "apiVersion").to_owned(), kind: str_at(kind, "kind").to_owned() });
        let conditions = expressions::admission(Scope { authorizer: true, params: param_kind.is_some(), patches: false });
        Self {
            name: machinery::object::name(policy).to_owned(),
            constraints: Match::parse(spec.get("matchConstraints").unwrap_or(&nothing)),
            conditions: Conditions::compile(list(spec, "matchConditions"), &conditions),
            variables: variables.into_iter().map(variable).collect(),
            validations: list(spec, "validations").iter().map(|v| validation(v, &env, &messages)).collect(),
            audit: list(spec, "auditAnnotations").iter().map(|a| annotation(a, &env)).collect(),
            mutations: list(spec, "mutations").iter().map(|m| mutation(m, &env)).collect(),
            param_kind,
            fails_open: str_at(spec, "failurePolicy") == "Ignore",
            reinvocable: str_at(spec, "reinvocationPolicy") == "IfNeeded",
        }
    }
}

fn compile(env: &Env, text: &str, allowed: &[Type]) -> Compiled {
    expressions::compile(env, text, allowed).map_err(|why| format!("compilation error: {why}"))
}

fn validation(v: &Value, env: &Env, messages: &Env) -> Validation {
    let by_expression = str_at(v, "messageExpression");
    Validation {
        expression: str_at(v, "expression").to_owned(),
        program: compile(env, str_at(v, "expression"), &[Type::Bool]),
        message: str_at(v, "message").to_owned(),
        message_program: (!by_expression.is_empty()).then(|| compile(messages, by_expression, &[Type::String])),
        reason: str_at(v, "reason").to_owned(),
    }
}

fn annotation(v: &Value, env: &Env) -> AuditAnnotation {
    let expression = str_at(v, "valueExpression").to_owned();
    let program = compile(env, &expression, &[Type::String, Type::Null]);
    AuditAnnotation { key: str_at(v, "key").to_owned(), expression, program }
}

fn mutation(v: &Value, env: &Env) -> Mutation {
    let json_patch = str_at(v, "patchType") == "JSONPatch";
    let expression = str_at(v, if json_patch { "jsonPatch.expression" } else { "applyConfiguration.expression" }).to_owned();
    let object = |name: &str| Type::object(cel::ObjectType::new(name));
    let of = if json_patch { Type::list(object("JSONPatch")) } else { object("Object") };
    Mutation { json_patch, program: compile(env, &expression, &[of]), expression }
}

/// What a binding says of parameters.
pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<Selector>,
    /// `parameterNotFoundAction: Deny`.
    pub deny_missing: bool,
}

/// A binding of either kind.
pub struct Binding {
    pub name: String,
    pub policy: String,
    pub resources: Option<Match>,
    pub params: Option<ParamRef>,
    /// Deny, Warn, Audit.
    pub actions: Vec<String>,
}

impl Binding {
    pub fn parse(binding: &Value) -> Self {
        let nothing = json!({});
        let spec = binding.get("spec").unwrap_or(&nothing);
        let params = spec.get("paramRef").filter(|r| r.is_object()).map(|reference| ParamRef {
            name: str_at(reference, "name").to_owned(),
            namespace: str_at(reference, "namespace").to_owned(),
            selector: reference
                .get("selector")
                .filter(|s| s.is_object())
                .map(|s| from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing())),
            deny_missing: str_at(reference, "parameterNotFoundAction") == "Deny",
        });
        Self {
            name: machinery::object::name(binding).to_owned(),
            policy: str_at(spec, "policyName").to_owned(),
            resources: spec.get("matchResources").filter(|r| r.is_object()).map(Match::parse),
            params,
            actions: list(spec, "validationActions").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    pub async fn matches(&self, request: &Request<'_>, value: &Value, old: Option<&Value>) -> Result<bool, StatusError> {
        match &self.resources {
            None => Ok(true),
            Some(resources) => Ok(resources.find(request, value, old).await?.is_some()),
        }
    }
}

/// A policy with the bindings that put it to use, by name.
pub struct Hook {
    pub policy: Arc<Definition>,
    pub bindings: Vec<Arc<Binding>>,
}
