//! CustomResourceDefinitions as type checking needs them: what they call their kinds, and the schemas of their versions. Those stay
//! text, for they can be large and are seldom read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, Resource};
use kinds::type_checking::CustomKind;
use machinery::gvk::GroupVersionKind;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::view::View;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct CustomResourceDefinition {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    pub group: String,
    pub names: Names,
    /// A list, in JSON.
    #[serde(deserialize_with = "text")]
    versions: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Names {
    pub plural: String,
    pub kind: String,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
    #[serde(default)]
    schema: Value,
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Box<str>, D::Error> {
    Value::deserialize(from).map(|tree| tree.to_string().into())
}

impl Resource for CustomResourceDefinition {
    const API_VERSION: &'static str = "apiextensions.k8s.io/v1";
    const GROUP: &'static str = "apiextensions.k8s.io";
    const KIND: &'static str = "CustomResourceDefinition";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "customresourcedefinitions";
    type Scope = ClusterResourceScope;
}

impl Metadata for CustomResourceDefinition {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The served custom resources of a group.
pub fn kinds_of(view: &View<'_>, group: &str) -> Vec<CustomKind> {
    let definitions = view.custom_resource_definitions.list();
    let mut out = Vec::new();
    for definition in definitions.iter().filter(|d| d.spec.group == group) {
        let versions: Vec<Version> = serde_json::from_str(&definition.spec.versions).unwrap_or_default();
        out.extend(versions.into_iter().filter(|v| v.served).map(|mut version| CustomKind {
            kind: GroupVersionKind::new(group, version.name, definition.spec.names.kind.clone()),
            resource: definition.spec.names.plural.clone(),
            schema: version.schema.get_mut("openAPIV3Schema").map(Value::take).unwrap_or_default(),
        }));
    }
    out
}
