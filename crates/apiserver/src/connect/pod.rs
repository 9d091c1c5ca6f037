//! Which container of a pod, on which node (upstream's `registry/core/pod` strategy).

use std::sync::Arc;

use machinery::object::{self, str_at};
use machinery::status::StatusError;
use serde_json::Value;

use crate::state::Api;
use crate::verbs::Target;

pub async fn read(api: &Arc<Api>, target: &Target) -> Result<Value, StatusError> {
    api.read(&target.resource, &target.namespace, &target.name).await?.ok_or_else(|| target.not_found())
}

/// The node a pod runs on, or the 400.
pub fn node(pod: &Value) -> Result<&str, StatusError> {
    match str_at(pod, "spec.nodeName") {
        "" => Err(StatusError::bad_request(format!("pod {} does not have a host assigned", object::name(pod)))),
        node => Ok(node),
    }
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    let containers = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
    containers.into_iter().flatten().map(|c| str_at(c, "name")).collect()
}

/// The container asked for, or the only one.
pub fn container(pod: &Value, asked: &str) -> Result<String, StatusError> {
    let own = names(pod, "containers");
    let (init, pod_name) = (names(pod, "initContainers"), object::name(pod));
    if !asked.is_empty() {
        let known = own.contains(&asked) || init.contains(&asked) || names(pod, "ephemeralContainers").contains(&asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(StatusError::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
        };
    }
    match own.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(StatusError::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        several => {
            let mut text = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", several.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(StatusError::bad_request(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_chosen_as_upstream_does() {
        let pod = |containers: &[&str], init: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
            json!({"metadata": {"name": "p"}, "spec": {"containers": list(containers), "initContainers": list(init)}})
        };
        let message = |pod: &Value, asked: &str| container(pod, asked).unwrap_err().message;
        assert_eq!(container(&pod(&["a"], &["i"]), "").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"], &["i"]), "i").unwrap(), "i");
        assert_eq!(message(&pod(&["a"], &[]), "x"), "container x is not valid for pod p");
        assert_eq!(message(&pod(&["a", "b"], &[]), ""), "a container name must be specified for pod p, choose one of: [a b]");
        let with_init = "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(message(&pod(&["a", "b"], &["i"]), ""), with_init);
        assert_eq!(node(&pod(&["a"], &[])).unwrap_err().message, "pod p does not have a host assigned");
    }
}
