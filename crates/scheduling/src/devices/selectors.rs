//! CEL selectors over devices: `device.driver`, `device.attributes[domain].name`, `device.capacity[domain].name`.

use std::collections::{BTreeMap, BTreeSet};

use cel::{Budget, Env, ObjectType, PER_CALL_LIMIT, Program, Type, Value, Variables};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceSelector};

/// The API's own limit for an expression, bytes.
const EXPRESSION_MAX: usize = 10 * 1024;

/// Compiled expressions that must all hold.
pub struct Selectors {
    programs: Vec<Program>,
    /// What the expressions spell out: domains among them are there even where a device has nothing in them.
    literals: BTreeSet<String>,
}

/// What compiling and evaluation need and every device shares.
pub struct Environment {
    quantity: Option<Program>,
    semver: Option<Program>,
}

/// The one variable, `device`.
fn device() -> Env {
    let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let device = ObjectType::new("kubernetes.DRADevice")
        .field("driver", Type::String)
        .field("allowMultipleAllocations", Type::Bool)
        .field("attributes", by_domain(Type::Dyn))
        .field("capacity", by_domain(Type::QUANTITY));
    Env::new().variable("device", Type::object(device)).bindings()
}

impl Selectors {
    /// `of` names the class or claim in errors.
    pub fn compile(selectors: &[DeviceSelector], of: &str) -> Result<Self, String> {
        let mut out = Self { programs: Vec::new(), literals: BTreeSet::new() };
        let environment = device();
        for (i, selector) in selectors.iter().enumerate() {
            let source = selector.cel.as_ref().map_or("", |c| c.expression.as_str());
            if source.len() > EXPRESSION_MAX {
                return Err(format!("{of}: selector #{i}: CEL compile error: longer than {EXPRESSION_MAX} bytes"));
            }
            let program = environment.compile(source).map_err(|why| format!("{of}: selector #{i}: CEL compile error: {why}"))?;
            if !matches!(program.output_type(), Type::Bool | Type::Dyn) {
                return Err(format!(
                    "{of}: selector #{i}: CEL compile error: must evaluate to bool or the unknown type, not {}",
                    program.output_type()
                ));
            }
            out.literals.extend(source.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned));
            out.programs.push(program);
        }
        Ok(out)
    }

    pub fn matches(&self, environment: &Environment, driver: &str, device: &Device, of: &str) -> Result<bool, String> {
        if self.programs.is_empty() {
            return Ok(true);
        }
        let mut variables = Variables::new();
        variables.value("device", environment.value(driver, device, &self.literals));
        for (i, program) in self.programs.iter().enumerate() {
            match program.eval(&variables, &mut Budget::new(PER_CALL_LIMIT)) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(other) => return Err(format!("{of}: selector #{i}: CEL runtime error: {} is not a bool", other.type_of())),
                Err(why) => return Err(format!("{of}: selector #{i}: CEL runtime error: {why}")),
            }
        }
        Ok(true)
    }
}

impl Environment {
    pub fn new() -> Self {
        let text = || Env::new().variable("text", Type::String);
        Self { quantity: text().compile("quantity(text)").ok(), semver: text().compile("semver(text)").ok() }
    }

    /// A value of one of the libraries' types, made by the library itself.
    fn make<'a>(maker: Option<&'a Program>, text: &'a str) -> Value<'a> {
        let mut variables = Variables::new();
        variables.value("text", text.into());
        maker.and_then(|m| m.eval(&variables, &mut Budget::new(PER_CALL_LIMIT)).ok()).unwrap_or(Value::Null)
    }

    fn value<'a>(&'a self, driver: &'a str, device: &'a Device, domains: &BTreeSet<String>) -> Value<'a> {
        let attributes = device.attributes.iter().flatten().filter_map(|(name, a)| Some((name.as_str(), self.attribute(a)?)));
        let capacity = device.capacity.iter().flatten();
        let capacity = capacity.map(|(name, c)| (name.as_str(), Self::make(self.quantity.as_ref(), &c.value.0)));
        Value::map([
            ("driver", driver.into()),
            ("allowMultipleAllocations", device.allow_multiple_allocations.unwrap_or(false).into()),
            ("attributes", by_domain(driver, domains, attributes)),
            ("capacity", by_domain(driver, domains, capacity)),
        ])
    }

    fn attribute<'a>(&'a self, attribute: &'a DeviceAttribute) -> Option<Value<'a>> {
        if let Some(number) = attribute.int {
            return Some(number.into());
        }
        if let Some(truth) = attribute.bool {
            return Some(truth.into());
        }
        if let Some(text) = &attribute.string {
            return Some(text.as_str().into());
        }
        attribute.version.as_ref().map(|v| Self::make(self.semver.as_ref(), v))
    }
}

/// Names without a domain belong to the driver's own.
fn by_domain<'a>(driver: &str, domains: &BTreeSet<String>, values: impl Iterator<Item = (&'a str, Value<'a>)>) -> Value<'a> {
    let mut out: BTreeMap<&str, Vec<(&'a str, Value<'a>)>> = domains.iter().map(|d| (d.as_str(), Vec::new())).collect();
    let values: Vec<_> = values.collect();
    for (name, value) in values {
        let (domain, id) = name.split_once('/').unwrap_or(("", name));
        out.entry(if domain.is_empty() { driver } else { domain }).or_default().push((id, value));
    }
    Value::map(out.into_iter().map(|(domain, ids)| (domain.to_owned(), Value::map(ids))))
}
