//! What a webhook authorizer is told of a request, as the spec of a SubjectAccessReview, and the conditions under which it is
//! asked at all (`matchConditions` of an `AuthorizationConfiguration`, over `request`).

use cel::{Budget, Env, MATCH_CONDITIONS_BUDGET, ObjectType, Program, Type, Variables};
use machinery::labels::Operator;
use serde_json::{Map, Value, json};

use crate::attributes::Attributes;

/// The spec of a SubjectAccessReview in `v1`.
pub fn review_spec(asked: &Attributes) -> Value {
    let mut spec = Map::new();
    let set = |map: &mut Map<String, Value>, key: &str, text: &str| {
        if !text.is_empty() {
            map.insert(key.to_owned(), json!(text));
        }
    };
    set(&mut spec, "user", &asked.user.name);
    set(&mut spec, "uid", &asked.user.uid);
    if !asked.user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(asked.user.groups));
    }
    if !asked.user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(asked.user.extra));
    }
    let mut about = Map::new();
    if asked.is_resource {
        for (key, text) in [
            ("namespace", &asked.namespace),
            ("verb", &asked.verb),
            ("group", &asked.group),
            ("version", &asked.version),
            ("resource", &asked.resource),
            ("subresource", &asked.subresource),
            ("name", &asked.name),
        ] {
            set(&mut about, key, text);
        }
        if !asked.field_selector.is_empty() {
            about.insert("fieldSelector".to_owned(), json!({"requirements": field_requirements(asked)}));
        }
        if !asked.label_selector.is_empty() {
            about.insert("labelSelector".to_owned(), json!({"requirements": label_requirements(asked)}));
        }
        spec.insert("resourceAttributes".to_owned(), Value::Object(about));
    } else {
        set(&mut about, "path", &asked.path);
        set(&mut about, "verb", &asked.verb);
        spec.insert("nonResourceAttributes".to_owned(), Value::Object(about));
    }
    Value::Object(spec)
}

fn field_requirements(asked: &Attributes) -> Vec<Value> {
    let one = |t: &machinery::fieldselector::Term| json!({"key": t.field, "operator": if t.negated { "NotIn" } else { "In" }, "values": [t.value]});
    asked.field_selector.iter().map(one).collect()
}

fn label_requirements(asked: &Attributes) -> Vec<Value> {
    let one = |r: &machinery::labels::Requirement| {
        let operator = match r.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // Not in a SubjectAccessReview: what is left out only makes the question wider.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut requirement = json!({"key": r.key, "operator": operator});
        if !r.values.is_empty() {
            requirement["values"] = json!(r.values);
        }
        Some(requirement)
    };
    asked.label_selector.iter().filter_map(one).collect()
}

/// All must hold for a webhook to be asked.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Program>);

impl Conditions {
    /// `Err`: position and reason of each that does not compile to a bool.
    pub fn compile(expressions: &[&str]) -> Result<Self, Vec<(usize, String)>> {
        let requirement = || {
            let one = ObjectType::new("kubernetes.SelectorRequirement")
                .field("key", Type::String)
                .field("operator", Type::String)
                .field("values", Type::list(Type::String));
            Type::object(
                ObjectType::new("kubernetes.SelectorAttributes")
                    .field("rawSelector", Type::String)
                    .field("requirements", Type::list(Type::object(one))),
            )
        };
        let mut resource = ObjectType::new("kubernetes.ResourceAttributes");
        for name in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
            resource = resource.field(name, Type::String);
        }
        let resource = resource.field("fieldSelector", requirement()).field("labelSelector", requirement());
        let path = ObjectType::new("kubernetes.NonResourceAttributes").field("path", Type::String).field("verb", Type::String);
        let request = ObjectType::new("kubernetes.SubjectAccessReviewSpec")
            .field("resourceAttributes", Type::object(resource))
            .field("nonResourceAttributes", Type::object(path))
            .field("user", Type::String)
            .field("groups", Type::list(Type::String))
            .field("extra", Type::map(Type::String, Type::list(Type::String)))
            .field("uid", Type::String);
        let env = Env::new().variable("request", Type::object(request));
        let (mut programs, mut errors) = (Vec::new(), Vec::new());
        for (i, text) in expressions.iter().enumerate() {
            match env.compile(text) {
                Ok(program) if *program.output_type() == Type::Bool => programs.push(program),
                Ok(_) => errors.push((i, format!("{text:?}: must evaluate to bool"))),
                Err(error) => errors.push((i, error.to_string())),
            }
        }
        if errors.is_empty() { Ok(Self(programs)) } else { Err(errors) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that is false decides, whatever fails beside it.
    pub fn hold(&self, spec: &Value) -> Result<bool, String> {
        let request = filled(spec);
        let mut variables = Variables::new();
        variables.json("request", &request);
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut failed = None;
        for program in &self.0 {
            match program.eval(&variables, &mut budget) {
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => return Ok(false),
                Err(error) => drop(failed.get_or_insert_with(|| error.to_string())),
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

/// Texts are there, if empty: as upstream hands them to expressions.
fn filled(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for key in ["user", "uid"] {
        if spec.get(key).is_none() {
            spec[key] = json!("");
        }
    }
    let names: [(&str, &[&str]); 2] = [
        ("resourceAttributes", &["namespace", "verb", "group", "version", "resource", "subresource", "name"]),
        ("nonResourceAttributes", &["path", "verb"]),
    ];
    for (holder, keys) in names {
        let Some(map) = spec.get_mut(holder).and_then(Value::as_object_mut) else { continue };
        for key in keys {
            map.entry(*key).or_insert_with(|| json!(""));
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::User;

    #[test]
    fn conditions_choose_the_requests() {
        let asked = Attributes {
            user: User::new("bob", &["dev"]),
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "ns".into(),
            is_resource: true,
            field_selector: machinery::fieldselector::parse("spec.nodeName=n").unwrap().terms,
            ..Attributes::default()
        };
        let spec = review_spec(&asked);
        assert_eq!(spec["resourceAttributes"]["fieldSelector"]["requirements"][0]["values"], json!(["n"]));
        let path = review_spec(&Attributes { verb: "get".into(), path: "/x".into(), ..Attributes::default() });
        for (text, of_list, of_path) in [
            ("has(request.resourceAttributes)", Ok(true), Ok(false)),
            ("!(request.user in ['bob'])", Ok(false), Ok(true)),
            ("request.groups.exists(g, g == 'dev')", Ok(true), Err(())),
            ("request.resourceAttributes.name == ''", Ok(true), Err(())),
        ] {
            let conditions = Conditions::compile(&[text]).unwrap();
            assert_eq!(conditions.hold(&spec).map_err(drop), of_list, "{text}");
            assert_eq!(conditions.hold(&path).map_err(drop), of_path, "{text}");
        }
        assert_eq!(Conditions::compile(&["true", "1", "request.nothing"]).unwrap_err().len(), 2);
        // A no beside a failure is a no.
        let both = Conditions::compile(&["request.resourceAttributes.name == ''", "false"]).unwrap();
        assert_eq!(both.hold(&path), Ok(false));
    }
}
