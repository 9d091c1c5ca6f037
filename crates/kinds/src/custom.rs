//! Rows made at run time: a CustomResourceDefinition, read once, as one [`Resource`] per served version. The rest of such a row
//! is as any other's; what only it has lies in [`Custom`].
//!
//! Whether a definition is sound is judged before (by its own strategy); which definitions are served is up to `apiserver`.

pub mod columns;
pub mod conditions;
mod strategy;

pub use strategy::go_type;

use std::sync::Arc;

use machinery::decode::DecodeError;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::structural::{ObjectMeta, ParseError, Schema, Source};
use serde_json::Value;

use crate::resource::{Column, Resource, Selectable, Subresource};
use crate::validate::tree::{at, flag, has, list, opt, opt_s, s, strings};
use crate::{Strategy, types};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// What discovery shows of a resource whose definition is being deleted.
pub const TERMINATING_VERBS: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// What only a row made at run time has.
pub struct Custom {
    pub definition: Arc<Definition>,
    /// What every request for this version is warned of.
    pub deprecation: Option<String>,
    /// Where its objects have what a Scale shows, if they have a `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// The definition is being deleted: nothing new may be made.
    pub terminating: bool,
}

/// What all versions of a custom resource share.
pub struct Definition {
    /// `widgets.example.com`
    pub name: String,
    pub uid: String,
    pub group: String,
    pub kind: String,
    pub list_kind: String,
    pub storage_version: String,
    /// All of them: what is stored may be of one that is not served.
    pub versions: Vec<Version>,
    pub conversion: Conversion,
}

pub struct Version {
    pub name: String,
    pub served: bool,
    pub schema: Arc<Schema>,
    /// As it was given, for OpenAPI; null where there is none.
    pub published: Value,
}

/// How an object of one version becomes one of another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    Webhook {
        /// `clientConfig`
        client: Value,
        review_versions: Vec<String>,
    },
}

/// JSONPaths of the definition: `.spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Empty: none.
    pub label_selector: String,
}

/// The type of metadata, the same in all.
pub fn object_meta() -> ObjectMeta<'static> {
    let types = types();
    ObjectMeta { types, ty: types.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap_or_default() }
}

impl Definition {
    fn read(definition: &Value) -> Result<Self, ParseError> {
        let spec = opt(definition, "spec").unwrap_or(&Value::Null);
        let names = at(definition, "status.acceptedNames").unwrap_or(&Value::Null);
        let mut versions = Vec::new();
        for version in list(spec, "versions") {
            let published = at(version, "schema.openAPIV3Schema").cloned().unwrap_or_default();
            let mut schema = Schema::parse(&published)?;
            schema.preserve_unknown |= flag(spec, "preserveUnknownFields");
            versions.push(Version {
                name: s(version, "name").to_owned(),
                served: flag(version, "served"),
                schema: Arc::new(schema),
                published,
            });
        }
        let storage = list(spec, "versions").iter().find(|v| flag(v, "storage"));
        let webhook = at(spec, "conversion.webhook").filter(|_| at(spec, "conversion").is_some_and(|c| s(c, "strategy") == "Webhook"));
        Ok(Self {
            name: s(&definition["metadata"], "name").to_owned(),
            uid: s(&definition["metadata"], "uid").to_owned(),
            group: s(spec, "group").to_owned(),
            kind: s(names, "kind").to_owned(),
            list_kind: s(names, "listKind").to_owned(),
            storage_version: storage.map(|v| s(v, "name").to_owned()).unwrap_or_default(),
            versions,
            conversion: webhook.map_or(Conversion::None, |w| Conversion::Webhook {
                client: opt(w, "clientConfig").cloned().unwrap_or_default(),
                review_versions: strings(w, "conversionReviewVersions").map(str::to_owned).collect(),
            }),
        })
    }

    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    pub fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    /// Brings an object that comes from the store or from a conversion into the form of the version it says it is of: what an
    /// older schema let in is dropped.
    pub fn settle(&self, object: &mut Value) {
        if let Some(version) = self.version_of(object) {
            // Metadata that is not well formed is dropped, so this cannot fail.
            drop(version.schema.decode(object_meta(), Source::Storage, object));
        }
    }

    /// [`Definition::settle`], and the defaults of that version: what every reader of a stored object sees.
    pub fn restore(&self, object: &mut Value) {
        self.settle(object);
        if let Some(version) = self.version_of(object) {
            version.schema.default(object);
        }
    }

    fn version_of(&self, object: &Value) -> Option<&Version> {
        let (_, name) = s(object, "apiVersion").split_once('/')?;
        self.version(name)
    }
}

impl Custom {
    /// Takes off nulls that the schema neither allows nor has a default for.
    pub fn drop_nulls(&self, version: &str, object: &mut Value) {
        if let Some(version) = self.definition.version(version) {
            version.schema.prune_nulls(object);
        }
    }

    /// Brings what a client sent into the form of its schema. Answers unknown fields.
    pub fn decode(&self, version: &str, source: Source, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        match self.definition.version(version) {
            Some(version) => version.schema.decode(object_meta(), source, object),
            None => Ok(Vec::new()),
        }
    }
}

/// The rows of a definition, by its accepted names.
pub fn rows(definition: &Value) -> Result<Vec<Resource>, ParseError> {
    let shared = Arc::new(Definition::read(definition)?);
    let terminating = conditions::is_true(definition, "Terminating");
    let versions = at(definition, "spec").map_or(&[][..], |spec| list(spec, "versions"));
    let served = versions.iter().zip(&shared.versions).filter(|(_, v)| v.served);
    Ok(served.map(|(given, version)| row(definition, given, version, &shared, terminating)).collect())
}

fn row(definition: &Value, given: &Value, version: &Version, shared: &Arc<Definition>, terminating: bool) -> Resource {
    let spec = opt(definition, "spec").unwrap_or(&Value::Null);
    let names = at(definition, "status.acceptedNames").unwrap_or(&Value::Null);
    let words = |key: &str| strings(names, key).map(str::to_owned).collect::<Vec<_>>();
    let (types, ty) = version.schema.to_types(object_meta());
    let plural = s(names, "plural").to_owned();
    let subresources = opt(given, "subresources");
    let scale = subresources.and_then(|s| opt(s, "scale")).map(ScalePaths::read);
    let has_status = subresources.is_some_and(|s| has(s, "status"));
    let strategy = strategy::CustomResources::new(
        GroupVersionKind::new(shared.group.clone(), version.name.clone(), shared.kind.clone()),
        version.schema.clone(),
        has_status,
        scale.clone(),
        columns::cells_of(given),
    );
    let strategy: Arc<dyn Strategy> = Arc::new(strategy);
    Resource {
        resource: plural.clone(),
        singular: s(names, "singular").to_owned(),
        kind: shared.kind.clone(),
        namespaced: s(spec, "scope") == "Namespaced",
        short_names: words("shortNames"),
        categories: words("categories"),
        verbs: VERBS.map(str::to_owned).to_vec(),
        subresources: read_subresources(shared, version, has_status, scale.is_some()),
        storage_prefix: format!("/registry/{}/{plural}", shared.group),
        storage_version: GroupVersion::new(shared.group.clone(), shared.storage_version.clone()),
        types: Arc::new(types),
        ty,
        storage_version_hash: String::new(),
        selectable: selectable(given),
        selector_rejection: "field label not supported: {field}".to_owned(),
        reset_fields: if has_status { vec!["status".to_owned()] } else { Vec::new() },
        columns: printed(given),
        strategy,
        custom: Some(Arc::new(Custom { definition: shared.clone(), deprecation: deprecation(shared, given), scale, terminating })),
        ..Resource::plain(&shared.group, &version.name)
    }
}

fn deprecation(shared: &Definition, given: &Value) -> Option<String> {
    if !flag(given, "deprecated") {
        return None;
    }
    let own = opt_s(given, "deprecationWarning").map(str::to_owned);
    Some(own.unwrap_or_else(|| format!("{} {} is deprecated", shared.api_version(s(given, "name")), shared.kind)))
}

impl ScalePaths {
    fn read(scale: &Value) -> Self {
        let path = |key: &str| s(scale, key).to_owned();
        Self {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            label_selector: path("labelSelectorPath"),
        }
    }
}

fn read_subresources(shared: &Definition, version: &Version, has_status: bool, has_scale: bool) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut out = Vec::new();
    if has_status {
        let kind = GroupVersionKind::new(shared.group.clone(), version.name.clone(), shared.kind.clone());
        out.push(Subresource { name: "status".to_owned(), kind, verbs: verbs() });
    }
    if has_scale {
        out.push(Subresource { name: "scale".to_owned(), kind: GroupVersionKind::new("autoscaling", "v1", "Scale"), verbs: verbs() });
    }
    out
}

fn selectable(given: &Value) -> Vec<Selectable> {
    let field = |path: &str| Selectable { label: path.to_owned(), path: path.to_owned(), default: String::new() };
    let own = list(given, "selectableFields").iter().map(|f| field(s(f, "jsonPath").trim_start_matches('.')));
    [field("metadata.name"), field("metadata.namespace")].into_iter().chain(own).collect()
}

/// The columns of a Table: the name, then those of the version, or the age.
fn printed(given: &Value) -> Vec<Column> {
    let column = |name: &str, column_type: &str, format: &str| Column {
        name: name.to_owned(),
        column_type: column_type.to_owned(),
        format: format.to_owned(),
        ..Column::default()
    };
    let mut out = vec![column("Name", "string", "name")];
    let given = list(given, "additionalPrinterColumns");
    if given.is_empty() {
        out.push(column("Age", "date", ""));
    }
    out.iter_mut().for_each(Column::describe_standard);
    for one in given {
        let path = s(one, "jsonPath");
        let description = opt_s(one, "description").filter(|d| !d.is_empty()).map(str::to_owned);
        out.push(Column {
            description: description.unwrap_or_else(|| format!("Custom resource definition column (in JSONPath format): {path}")),
            priority: one.get("priority").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            json_path: path.to_owned(),
            ..column(s(one, "name"), s(one, "type"), s(one, "format"))
        });
    }
    out
}
