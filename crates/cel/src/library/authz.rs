//! Authorization checks: `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use std::sync::Arc;

use machinery::names;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::regexes::Regexes;
use crate::value::Value;
use crate::variables::{AuthzDecision, AuthzRequest};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("path", path, &[("authorizer_path", "Authorizer.(string) -> PathCheck")]),
    ("group", group, &[("authorizer_group", "Authorizer.(string) -> GroupCheck")]),
    ("serviceAccount", service_account, &[("authorizer_serviceaccount", "Authorizer.(string, string) -> Authorizer")]),
    ("resource", resource, &[("groupcheck_resource", "GroupCheck.(string) -> ResourceCheck")]),
    ("subresource", |_, a| set(a, |r, s| r.subresource = s), &[("resourcecheck_subresource", "ResourceCheck.(string) -> ResourceCheck")]),
    ("namespace", |_, a| set(a, |r, s| r.namespace = s), &[("resourcecheck_namespace", "ResourceCheck.(string) -> ResourceCheck")]),
    ("name", |_, a| set(a, |r, s| r.name = s), &[("resourcecheck_name", "ResourceCheck.(string) -> ResourceCheck")]),
    (
        "fieldSelector",
        |_, a| set(a, |r, s| r.field_selector = s),
        &[("authorizer_fieldselector", "ResourceCheck.(string) -> ResourceCheck")],
    ),
    (
        "labelSelector",
        |_, a| set(a, |r, s| r.label_selector = s),
        &[("authorizer_labelselector", "ResourceCheck.(string) -> ResourceCheck")],
    ),
    (
        "check",
        check,
        &[("pathcheck_check", "PathCheck.(string) -> Decision"), ("resourcecheck_check", "ResourceCheck.(string) -> Decision")],
    ),
    ("allowed", |_, a| Ok(Value::Bool(decision(&a[0])?.allowed)), &[("decision_allowed", "Decision.() -> bool")]),
    ("reason", |_, a| Ok(Value::string(&*decision(&a[0])?.reason)), &[("decision_reason", "Decision.() -> string")]),
    ("errored", |_, a| Ok(Value::Bool(decision(&a[0])?.error.is_some())), &[("decision_errored", "Decision.() -> bool")]),
    ("error", |_, a| Ok(Value::string(decision(&a[0])?.error.as_deref().unwrap_or(""))), &[("decision_error", "Decision.() -> string")]),
];

fn request(service_account: Option<&Arc<(String, String)>>) -> AuthzRequest {
    AuthzRequest { service_account: service_account.map(|s| (**s).clone()), ..AuthzRequest::default() }
}

fn path<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::Authorizer { authorizer, service_account }) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let path = str_arg(&args[1])?;
    if path.trim().is_empty() {
        return Err(EvalError::new("path must not be empty"));
    }
    let request = AuthzRequest { path: path.to_owned(), ..request(service_account.as_ref()) };
    Ok(Value::Opaque(Opaque::PathCheck { authorizer: *authorizer, request: Arc::new(request) }))
}

fn group<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::Authorizer { authorizer, service_account }) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let request = AuthzRequest { group: str_arg(&args[1])?.to_owned(), ..request(service_account.as_ref()) };
    Ok(Value::Opaque(Opaque::GroupCheck { authorizer: *authorizer, request: Arc::new(request) }))
}

fn service_account<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::Authorizer { authorizer, .. }) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let (namespace, name) = (str_arg(&args[1])?, str_arg(&args[2])?);
    if !names::dns1123_subdomain(name).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !names::dns1123_label(namespace).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let service_account = Some(Arc::new((namespace.to_owned(), name.to_owned())));
    Ok(Value::Opaque(Opaque::Authorizer { authorizer: *authorizer, service_account }))
}

fn resource<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::GroupCheck { authorizer, request }) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let resource = str_arg(&args[1])?;
    if resource.trim().is_empty() {
        return Err(EvalError::new("resource must not be empty"));
    }
    let request = AuthzRequest { resource: resource.to_owned(), ..(**request).clone() };
    Ok(Value::Opaque(Opaque::ResourceCheck { authorizer: *authorizer, request: Arc::new(request) }))
}

fn set<'a>(args: &[Value<'a>], put: fn(&mut AuthzRequest, String)) -> Outcome<'a> {
    let Value::Opaque(Opaque::ResourceCheck { authorizer, request }) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let mut request = (**request).clone();
    put(&mut request, str_arg(&args[1])?.to_owned());
    Ok(Value::Opaque(Opaque::ResourceCheck { authorizer: *authorizer, request: Arc::new(request) }))
}

fn check<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Value::Opaque(Opaque::ResourceCheck { authorizer, request }) | Value::Opaque(Opaque::PathCheck { authorizer, request })) =
        &args[0]
    else {
        return Err(EvalError::no_such_overload());
    };
    let asked = AuthzRequest { verb: str_arg(&args[1])?.to_owned(), ..(**request).clone() };
    Ok(Value::Opaque(Opaque::Decision(Arc::new(authorizer.authorize(&asked)))))
}

fn decision<'v>(value: &'v Value<'_>) -> Result<&'v AuthzDecision, EvalError> {
    match value {
        Value::Opaque(Opaque::Decision(decision)) => Ok(decision),
        _ => Err(EvalError::no_such_overload()),
    }
}
