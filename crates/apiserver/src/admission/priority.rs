//! `priorityClassName` becomes `priority` and `preemptionPolicy`; one PriorityClass at most is the default.

use async_trait::async_trait;
use machinery::object::{map_mut, name, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const GROUP: &str = "scheduling.k8s.io";
const KIND: &str = "PriorityClass";

pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn handles(&self, request: &Request<'_>) -> bool {
        let pod = request.is("", "Pod") && matches!(request.operation, Operation::Create | Operation::Update);
        pod || (request.is(GROUP, KIND) && matches!(request.operation, Operation::Create | Operation::Update))
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
        if !request.is("", "Pod") {
            return Ok(());
        }
        if let Some(old) = old {
            // As it was resolved at creation.
            for key in ["priority", "preemptionPolicy"] {
                let was = old.pointer(&format!("/spec/{key}")).filter(|v| !v.is_null()).cloned();
                if let Some(was) = was
                    && value.pointer(&format!("/spec/{key}")).is_none_or(Value::is_null)
                {
                    map_mut(value, "spec").insert(key.into(), was);
                }
            }
            return Ok(());
        }
        let (class_name, class) = find(request, value).await?;
        let (priority, policy) = match &class {
            Some(class) => (class.get("value").cloned().unwrap_or(json!(0)), str_at(class, "preemptionPolicy").to_owned()),
            None => (json!(0), String::new()),
        };
        let policy = if policy.is_empty() { "PreemptLowerPriority".to_owned() } else { policy };
        let given = value.pointer("/spec/priority").filter(|v| !v.is_null());
        if let Some(given) = given
            && *given != priority
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            );
            return Err(request.forbidden(value, &why));
        }
        // Given at all: an empty text is another policy, too.
        if let Some(given) = value.pointer("/spec/preemptionPolicy").and_then(Value::as_str)
            && given != policy
        {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            );
            return Err(request.forbidden(value, &why));
        }
        let spec = map_mut(value, "spec");
        if !class_name.is_empty() {
            spec.insert("priorityClassName".into(), json!(class_name));
        }
        spec.insert("priority".into(), priority);
        spec.insert("preemptionPolicy".into(), json!(policy));
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if !request.is(GROUP, KIND) || value.get("globalDefault") != Some(&Value::Bool(true)) {
            return Ok(());
        }
        for other in request.api.read_all(GROUP, KIND, "").await? {
            if other.get("globalDefault") == Some(&Value::Bool(true)) && name(&other) != name(value) {
                let why = format!("PriorityClass {} is already marked as default. Only one default can exist", name(&other));
                return Err(request.forbidden(value, &why));
            }
        }
        Ok(())
    }
}

/// The class a pod names, or the default one.
async fn find(request: &Request<'_>, pod: &Value) -> Result<(String, Option<Value>), StatusError> {
    let wanted = str_at(pod, "spec.priorityClassName");
    if !wanted.is_empty() {
        let class = request.api.read_kind(GROUP, KIND, "", wanted).await?;
        if class.is_none() {
            return Err(request.forbidden(pod, &format!("no PriorityClass with name {wanted} was found")));
        }
        return Ok((wanted.to_owned(), class));
    }
    let all = request.api.read_all(GROUP, KIND, "").await?;
    let default = all.into_iter().filter(|c| c.get("globalDefault") == Some(&Value::Bool(true)));
    let lowest = default.min_by_key(|c| c.get("value").and_then(Value::as_i64).unwrap_or(0));
    Ok((lowest.as_ref().map(|c| name(c).to_owned()).unwrap_or_default(), lowest))
}
