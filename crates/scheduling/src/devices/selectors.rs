//! CEL selectors over devices: `device.driver`, `device.attributes[domain].name`, `device.capacity[domain].name`.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceSelector};
use kube_cel::KubeCelExt;
use kube_cel::cel::objects::Key;
use kube_cel::cel::{Context, Program, Value};

/// The API's own limit for an expression, bytes.
const EXPRESSION_MAX: usize = 10 * 1024;

/// Compiled expressions that must all hold.
pub struct Selectors {
    programs: Vec<Program>,
    /// What the expressions spell out: domains among them are there even where a device has nothing in them.
    literals: BTreeSet<String>,
}

/// What evaluation needs and every device shares.
pub struct Environment {
    context: Context<'static>,
    quantity: Option<Program>,
    semver: Option<Program>,
}

impl Selectors {
    /// `of` names the class or claim in errors.
    pub fn compile(selectors: &[DeviceSelector], of: &str) -> Result<Self, String> {
        let mut out = Self { programs: Vec::new(), literals: BTreeSet::new() };
        for (i, selector) in selectors.iter().enumerate() {
            let source = selector.cel.as_ref().map_or("", |c| c.expression.as_str());
            if source.len() > EXPRESSION_MAX {
                return Err(format!("{of}: selector #{i}: CEL compile error: longer than {EXPRESSION_MAX} bytes"));
            }
            let program = Program::compile(source).map_err(|why| format!("{of}: selector #{i}: CEL compile error: {why}"))?;
            out.literals.extend(source.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned));
            out.programs.push(program);
        }
        Ok(out)
    }

    pub fn matches(&self, environment: &Environment, driver: &str, device: &Device, of: &str) -> Result<bool, String> {
        if self.programs.is_empty() {
            return Ok(true);
        }
        let mut context = environment.context.new_inner_scope();
        context.add_variable_from_value("device", environment.value(driver, device, &self.literals));
        for (i, program) in self.programs.iter().enumerate() {
            match program.execute(&context) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(other) => return Err(format!("{of}: selector #{i}: CEL runtime error: {:?} is not a bool", other.type_of())),
                Err(why) => return Err(format!("{of}: selector #{i}: CEL runtime error: {why}")),
            }
        }
        Ok(true)
    }
}

impl Environment {
    pub fn new() -> Self {
        Self {
            context: Context::default().with_all(),
            quantity: Program::compile("quantity(text)").ok(),
            semver: Program::compile("semver(text)").ok(),
        }
    }

    /// A value of one of the extension types, made by the library itself.
    fn make(&self, maker: Option<&Program>, text: &str) -> Value {
        let mut context = self.context.new_inner_scope();
        context.add_variable_from_value("text", text.to_owned());
        maker.and_then(|m| m.execute(&context).ok()).unwrap_or(Value::Null)
    }

    fn value(&self, driver: &str, device: &Device, domains: &BTreeSet<String>) -> Value {
        let attributes = device.attributes.iter().flatten().filter_map(|(name, a)| Some((name.as_str(), self.attribute(a)?)));
        let capacity = device.capacity.iter().flatten().map(|(name, c)| (name.as_str(), self.make(self.quantity.as_ref(), &c.value.0)));
        let fields: HashMap<Key, Value> = HashMap::from([
            ("driver".into(), driver.to_owned().into()),
            ("allowMultipleAllocations".into(), device.allow_multiple_allocations.unwrap_or(false).into()),
            ("attributes".into(), by_domain(driver, domains, attributes)),
            ("capacity".into(), by_domain(driver, domains, capacity)),
        ]);
        fields.into()
    }

    fn attribute(&self, attribute: &DeviceAttribute) -> Option<Value> {
        if let Some(number) = attribute.int {
            return Some(number.into());
        }
        if let Some(truth) = attribute.bool {
            return Some(truth.into());
        }
        if let Some(text) = &attribute.string {
            return Some(text.clone().into());
        }
        attribute.version.as_ref().map(|v| self.make(self.semver.as_ref(), v))
    }
}

/// Names without a domain belong to the driver's own.
fn by_domain<'a>(driver: &str, domains: &BTreeSet<String>, values: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut out: HashMap<String, HashMap<Key, Value>> = domains.iter().map(|d| (d.clone(), HashMap::new())).collect();
    for (name, value) in values {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        out.entry(domain.to_owned()).or_default().insert(id.to_owned().into(), value);
    }
    let out: HashMap<Key, Value> = out.into_iter().map(|(domain, ids)| (domain.into(), ids.into())).collect();
    out.into()
}
