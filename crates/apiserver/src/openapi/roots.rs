//! Documents and paths of what is no resource: the lists of groups and versions, single groups, the server's version, and what a
//! token issuer publishes.

use machinery::gvk::GroupVersion;
use serde_json::{Map, Value};

use super::operations::{capitalised, group_name};
use super::paths::Dialect;
use super::schemas::Schemas;
use super::{custom, v3_of, words};
use crate::registry::Snapshot;

/// One such path.
pub struct Root {
    /// The name of its document: `apis/apps`.
    document: String,
    path: String,
    words: &'static str,
    identifier: String,
    tag: String,
    /// The name of the type that it answers; empty: text.
    answers: String,
}

impl Root {
    fn new(document: &str, words: &'static str, identifier: &str, tag: &str, answers: String) -> Self {
        Self { document: document.into(), path: format!("/{document}/"), words, identifier: identifier.into(), tag: tag.into(), answers }
    }

    fn of_group(group: &str) -> Self {
        let tag = group_name(group);
        let identifier = format!("get{}APIGroup", capitalised(&tag));
        Self::new(&format!("apis/{group}"), "get information of a group", &identifier, &tag, custom::meta("APIGroup"))
    }

    /// Its document of version 3.
    pub fn document(&self) -> Value {
        let mut schemas = Schemas::new(Dialect::V3, words());
        let path = self.write(&mut schemas);
        v3_of(Value::Object(Map::from_iter([(self.path.clone(), path)])), schemas)
    }

    fn write(&self, schemas: &mut Schemas) -> Value {
        schemas.root(self.words, &self.identifier, &self.tag, &self.answers)
    }
}

/// Those that are there whatever groups there are.
fn fixed() -> Vec<Root> {
    let words = "get available API versions";
    let issuer = "get the OpenID configuration of the issuer of service account tokens";
    let keys = "get the keys of the issuer of service account tokens, as a JSON Web Key Set";
    let version = super::schemas::VERSION.to_owned();
    vec![
        Root::new("api", words, "getCoreAPIVersions", "core", custom::meta("APIVersions")),
        Root::new("apis", words, "getAPIVersions", "apis", custom::meta("APIGroupList")),
        Root::new("version", "get the version information for this server", "getCodeVersion", "version", version),
        Root::new(".well-known/openid-configuration", issuer, "getServiceAccountIssuerOpenIDConfiguration", "WellKnown", String::new()),
        Root::new("openid/v1/jwks", keys, "getServiceAccountIssuerOpenIDKeyset", "openid", String::new()),
    ]
}

fn groups(versions: &[GroupVersion]) -> Vec<&str> {
    let mut groups: Vec<&str> = versions.iter().map(|gv| gv.group.as_str()).filter(|g| !g.is_empty()).collect();
    groups.dedup();
    groups
}

/// The names of the documents.
pub fn names(registry: &Snapshot) -> Vec<String> {
    let groups = groups(registry.group_versions()).into_iter().map(|group| format!("apis/{group}"));
    fixed().into_iter().map(|root| root.document).chain(groups).collect()
}

/// The path whose document has a name.
pub fn find(registry: &Snapshot, name: &str) -> Option<Root> {
    let group = name.strip_prefix("apis/").filter(|group| groups(registry.group_versions()).contains(group));
    group.map(Root::of_group).or_else(|| fixed().into_iter().find(|root| root.document == name))
}

/// All of them, for the version 2 document.
pub fn paths(schemas: &mut Schemas) -> Map<String, Value> {
    let built_in = groups(kinds::table().group_versions()).into_iter().map(Root::of_group);
    fixed().into_iter().chain(built_in).map(|root| (root.path.clone(), root.write(schemas))).collect()
}
