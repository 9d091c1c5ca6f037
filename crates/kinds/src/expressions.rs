//! CEL expressions of built-in kinds: what they may speak of, and that they compile. Called by the validation of admission
//! policies, webhook configurations and device selectors; `apiserver` compiles with the same environments to evaluate.

use cel::{Env, ObjectType, Program, Type};
use machinery::field::{Error, ErrorList, Path};
use serde_json::Value;

use crate::validate::tree::{list, opt, s};

/// What one device selector may cost.
const SELECTOR_COST_MAX: u64 = 1_000_000;
/// Longest texts and largest maps of a device, as one bound.
const DEVICE_SIZE_MAX: u64 = 64;

/// Beside the objects and the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    pub params: bool,
    pub authorizer: bool,
    /// The types of mutations.
    pub patches: bool,
}

/// What admission expressions may speak of.
pub fn admission(scope: Scope) -> Env {
    let mut env = Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", request_type())
        .variable("namespaceObject", namespace_type());
    if scope.params {
        env = env.variable("params", Type::Dyn);
    }
    if scope.authorizer {
        env = env.variable("authorizer", Type::AUTHORIZER).variable("authorizer.requestResource", Type::RESOURCE_CHECK);
    }
    if scope.patches { env.mutation_types() } else { env }
}

/// What `variables` of a policy gives: one field per variable that was declared so far.
pub fn with_variables(env: Env, variables: &[(String, Type)]) -> Env {
    let fields = variables.iter().fold(ObjectType::new("kubernetes.variables"), |of, (name, ty)| of.field(name, ty.clone()));
    env.variable("variables", Type::object(fields))
}

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let of = ObjectType::new(format!("kubernetes.{name}"));
    Type::object(fields.iter().fold(of, |of, (field, ty)| of.field(field, ty.clone())))
}

fn texts(name: &str, fields: &[&str]) -> Type {
    object(name, &fields.iter().map(|f| (*f, Type::String)).collect::<Vec<_>>())
}

/// `AdmissionRequest`
pub fn request_type() -> Type {
    let kind = texts("GroupVersionKind", &["group", "version", "kind"]);
    let resource = texts("GroupVersionResource", &["group", "version", "resource"]);
    let user = object(
        "UserInfo",
        &[
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::String, Type::list(Type::String))),
        ],
    );
    object(
        "AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The parts of a Namespace that expressions see.
fn namespace_type() -> Type {
    let metadata = object(
        "NamespaceMetadata",
        &[
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", Type::map(Type::String, Type::String)),
            ("annotations", Type::map(Type::String, Type::String)),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    object(
        "Namespace",
        &[
            ("metadata", metadata),
            ("spec", object("NamespaceSpec", &[("finalizers", Type::list(Type::String))])),
            ("status", object("NamespaceStatus", &[("phase", Type::String)])),
        ],
    )
}

/// The one variable of device selectors.
pub fn device() -> Env {
    let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let device = object(
        "DRADevice",
        &[
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_domain(Type::Dyn)),
            ("capacity", by_domain(Type::QUANTITY)),
        ],
    );
    Env::new().variable("device", device).bindings()
}

/// Compiles an expression that must give one of these types. The text is upstream's.
pub fn compile(env: &Env, text: &str, allowed: &[Type]) -> Result<Program, String> {
    let program = env.compile(text).map_err(|e| e.to_string())?;
    let of = program.output_type();
    // No types at all: any will do.
    if allowed.is_empty() || allowed.contains(of) {
        return Ok(program);
    }
    let name = |of: &Type| if *of == Type::Null { "null_type".to_owned() } else { of.to_string() };
    match allowed {
        [one] => Err(format!("must evaluate to {} but got {}", name(one), name(of))),
        many => {
            let all: Vec<String> = many.iter().map(name).collect();
            Err(format!("must evaluate to one of [{}] but got {}", all.join(" "), name(of)))
        }
    }
}

/// Reports an expression that does not compile.
pub fn check(env: &Env, text: &str, allowed: &[Type], p: &Path<'_>, e: &mut ErrorList) {
    if let Err(why) = compile(env, text, allowed) {
        e.push(Error::invalid_str(p, text, why));
    }
}

/// A variable's name, and its program or what is wrong with it.
pub type Variable = (String, Result<Program, cel::CompileError>);

/// The environment of a policy, and its variables: each sees those before it.
pub fn policy(spec: &Value, scope: Scope) -> (Env, Vec<Variable>) {
    declare(admission(Scope { params: opt(spec, "paramKind").is_some(), ..scope }), list(spec, "variables"))
}

/// Declares variables one after the other; those that do not compile can be anything.
pub fn declare(base: Env, variables: &[Value]) -> (Env, Vec<Variable>) {
    let mut known: Vec<(String, Type)> = Vec::new();
    let mut out = Vec::new();
    for variable in variables {
        let compiled = with_variables(base.clone(), &known).compile(s(variable, "expression").trim());
        let name = s(variable, "name").to_owned();
        known.push((name.clone(), compiled.as_ref().map_or(Type::Dyn, |p| p.output_type().clone())));
        out.push((name, compiled));
    }
    (with_variables(base, &known), out)
}

/// A device selector compiles, gives a boolean and is cheap enough.
pub fn check_selector(text: &str, p: &Path<'_>, e: &mut ErrorList) {
    match compile(&device(), text, &[]) {
        Err(why) => e.push(Error::invalid_str(p, text, why)),
        Ok(program) if !matches!(program.output_type(), Type::Bool | Type::Dyn) => {
            let why = format!("must evaluate to bool or the unknown type, not {}", program.output_type());
            e.push(Error::invalid_str(p, text, why));
        }
        Ok(program) => {
            if program.estimated_cost(&|_: &[String]| Some(DEVICE_SIZE_MAX)).max > SELECTOR_COST_MAX {
                e.push(Error::forbidden(p, "too complex, exceeds cost limit"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_decide_what_may_be_named() {
        let all = Scope { params: true, authorizer: true, patches: true };
        for (text, scope, compiles) in [
            ("object.spec.x == params.y", all, true),
            ("params.x == 1", Scope::default(), false),
            ("authorizer.requestResource.check('get').allowed()", all, true),
            ("authorizer.requestResource.check('get').allowed()", Scope::default(), false),
            ("namespaceObject.metadata.labels['a'] == request.userInfo.username", Scope::default(), true),
            ("request.nothing", Scope::default(), false),
            ("Object{spec: Object.spec{replicas: 1}}", all, true),
            ("Object{}", Scope::default(), false),
        ] {
            assert_eq!(admission(scope).compile(text).is_ok(), compiles, "{text}");
        }
        let env = policy(
            &serde_json::json!({"variables": [{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"}]}),
            all,
        )
        .0;
        assert_eq!(compile(&env, "variables.b", &[Type::Int]).map(|_| ()), Ok(()));
        assert_eq!(compile(&env, "variables.b", &[Type::Bool]).err().as_deref(), Some("must evaluate to bool but got int"));
        assert_eq!(
            compile(&env, "1", &[Type::String, Type::Null]).err().as_deref(),
            Some("must evaluate to one of [string null_type] but got int")
        );
    }

    #[test]
    fn selectors_of_devices_are_bounded() {
        let problems = |text: &str| {
            let mut e = ErrorList::new();
            check_selector(text, &Path::new("p"), &mut e);
            e.len()
        };
        assert_eq!(
            problems("device.attributes['a.example'].model == 'x' && device.capacity['a.example'].memory.isGreaterThan(quantity('1Gi'))"),
            0
        );
        assert_eq!(problems("device.driver"), 1);
        assert_eq!(problems("device.nope == 1"), 1);
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, true))))";
        assert_eq!(problems(nested), 1);
    }
}
