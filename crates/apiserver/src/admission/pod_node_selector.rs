//! The pods of a namespace go to its nodes: the namespace's node selector is added to theirs, and a list in the plugin's
//! configuration bounds what they may select.

use std::collections::BTreeMap;

use async_trait::async_trait;
use machinery::object::map_mut;
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::configuration::{Given, known};
use super::{Operation, Plugin, Request};

const ANNOTATION: &str = "/metadata/annotations/scheduler.alpha.kubernetes.io~1node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The selectors of the configuration, by namespace; under [`DEFAULT`] that of namespaces that name none themselves.
pub struct PodNodeSelector(BTreeMap<String, Labels>);

impl PodNodeSelector {
    pub fn new(given: Option<&Given>) -> Result<Self, String> {
        let Some(given) = given else { return Ok(Self(BTreeMap::new())) };
        known(&given.tree, "", &["podNodeSelectorPluginConfig"])?;
        let map = given.tree.get("podNodeSelectorPluginConfig").and_then(Value::as_object).into_iter().flatten();
        let parsed = map.map(|(namespace, text)| Ok((namespace.clone(), labels(text.as_str().unwrap_or_default())?)));
        Ok(Self(parsed.collect::<Result<_, String>>()?))
    }

    async fn of_namespace(&self, request: &Request<'_>) -> Result<Labels, StatusError> {
        let Some(namespace) = request.api.read_kind("", "Namespace", "", request.namespace).await? else {
            return Err(StatusError::not_found(&machinery::gvk::GroupResource::new("", "namespaces"), request.namespace));
        };
        match namespace.pointer(ANNOTATION).and_then(Value::as_str) {
            Some(text) => labels(text).map_err(StatusError::internal),
            None => Ok(self.0.get(DEFAULT).cloned().unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Plugin for PodNodeSelector {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.is("", "Pod") && request.operation == Operation::Create
    }

    async fn mutate(&self, request: &Request<'_>, value: &mut Value, _old: Option<&Value>) -> Result<(), StatusError> {
        let wanted = self.of_namespace(request).await?;
        if conflicts(&wanted, value) {
            return Err(request.forbidden(value, "pod node label selector conflicts with its namespace node label selector"));
        }
        for (key, text) in wanted {
            map_mut(value, "spec.nodeSelector").insert(key, json!(text));
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, value: &Value, _old: Option<&Value>) -> Result<(), StatusError> {
        if conflicts(&self.of_namespace(request).await?, value) {
            return Err(request.forbidden(value, "pod node label selector conflicts with its namespace node label selector"));
        }
        let Some(allowed) = self.0.get(request.namespace).filter(|a| !a.is_empty()) else { return Ok(()) };
        let own = value.pointer("/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
        match own.into_iter().all(|(key, text)| allowed.get(key).map(String::as_str) == text.as_str()) {
            true => Ok(()),
            false => Err(request.forbidden(value, "pod node label selector labels conflict with its namespace whitelist")),
        }
    }
}

/// Whether the pod selects another value of a label.
fn conflicts(wanted: &Labels, pod: &Value) -> bool {
    let own = |key: &String| pod.pointer("/spec/nodeSelector")?.get(key)?.as_str();
    wanted.iter().any(|(key, text)| own(key).is_some_and(|own| own != text))
}

/// `a=b,c=d`
fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("invalid selector: {pair}"))?;
            let (key, value) = (key.trim(), value.trim_start_matches('=').trim());
            let problems = [machinery::names::qualified_name(key), machinery::names::label_value(value)].concat();
            problems.first().map_or(Ok((key.to_owned(), value.to_owned())), |why| Err(format!("invalid selector {pair:?}: {why}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_lists_of_pairs() {
        assert_eq!(labels("a=b, c==d,").unwrap(), [("a", "b"), ("c", "d")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(labels("a").is_err() && labels("a b=c").is_err() && labels("a=b c").is_err());
    }
}
