//! One row of the table: a resource as one group and version serves it.

use std::sync::Arc;

use machinery::decode::DecodeError;
use machinery::defaults::Defaults;
use machinery::gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
use machinery::schema::{TypeId, Types};
use machinery::structural::Source;

use crate::custom::Custom;
use crate::strategy::Strategy;

/// A resource in one served version.
#[derive(Clone)]
pub struct Resource {
    pub group: String,
    pub version: String,
    /// Plural, as in URLs.
    pub resource: String,
    pub singular: String,
    pub kind: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// As discovery lists them.
    pub verbs: Vec<String>,
    /// Sorted by name; of custom resources the status comes first.
    pub subresources: Vec<Subresource>,
    /// Where objects are stored, whatever version was asked for: `/registry/pods`.
    pub storage_prefix: String,
    /// The version objects are stored in; equal to `version` for most.
    pub storage_version: GroupVersion,
    /// Where `ty` is found: the built-in types, or those made from a custom resource's schema.
    pub types: Arc<Types>,
    /// The type of the object in this version.
    pub ty: TypeId,
    /// Defaults that are plain values, for objects of this version.
    pub defaults: Defaults,
    /// Discovery's `storageVersionHash`; empty where discovery prints none.
    pub storage_version_hash: String,
    pub name_rule: NameRule,
    /// PUT of a missing object creates it.
    pub allow_create_on_update: bool,
    /// PUT without a resourceVersion overwrites.
    pub allow_unconditional_update: bool,
    pub graceful_delete: bool,
    pub default_deletion: DefaultDeletion,
    /// DELETE answers with the object instead of a Status.
    pub returns_deleted_object: bool,
    /// Objects expire (Events).
    pub expires: bool,
    pub generation: Generation,
    /// Field selectors the resource accepts: all of them, with `metadata.name` and, where it is accepted, `metadata.namespace`.
    pub selectable: Vec<Selectable>,
    /// The text of the 400 for any other field selector; `{field}` stands for the label.
    pub selector_rejection: String,
    /// Fields an applier through the main resource does not own (`ResetFields`), as dotted paths: `status`.
    pub reset_fields: Vec<String>,
    /// Table columns.
    pub columns: Vec<Column>,
    pub strategy: Arc<dyn Strategy>,
    /// What only a row made at run time has.
    pub custom: Option<Arc<Custom>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, ...
    pub name: String,
    /// The kind it speaks, which may be of another group: `autoscaling/v1 Scale`.
    pub kind: GroupVersionKind,
    pub verbs: Vec<String>,
}

/// Which names an object may have; the texts of errors are in `machinery::names`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    #[default]
    Dns1123Subdomain,
    Dns1123Label,
    Dns1035Label,
    /// No `/`, `%`, and not `.` or `..`: RBAC names.
    PathSegment,
    /// A subdomain, by a rule declared with the type (`+k8s:format=k8s-long-name`): prefixes of generated names are not looked at.
    Declared,
    /// The strategy's `validate` checks the name itself.
    ByStrategy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultDeletion {
    #[default]
    Background,
    Orphan,
    /// Garbage collection does not apply: events.
    Unsupported,
}

/// How `metadata.generation` moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// What the client wrote is kept.
    #[default]
    Untouched,
    /// 1 at creation; up by one when anything but metadata and status changed.
    Spec,
    /// As `Spec`, and annotations count: Deployments.
    SpecOrAnnotations,
    /// As `Spec`, and labels count: EndpointSlices.
    SpecOrLabels,
    /// 1 at creation, and never changed.
    Once,
    /// Nothing at creation; up by one when anything but metadata and status changed.
    Updates,
    /// The strategy sets it.
    ByStrategy,
}

/// A field a selector may name, with the path its value has in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectable {
    /// As in the selector: `involvedObject.uid`, `type`.
    pub label: String,
    /// Where it is: `involvedObject.uid`. A missing value reads as `default`; an empty path always does.
    pub path: String,
    pub default: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub column_type: String,
    pub format: String,
    pub description: String,
    /// The field whose description upstream shows, `io.k8s.api.core.v1.PodSpec#nodeName`, where `description` is empty; followed
    /// by `#2` it is the first two sentences.
    pub described_by: String,
    pub priority: i32,
    /// For custom resources: the JSONPath of the cell. Built-in cells come from the strategy's `cells`.
    pub json_path: String,
}

impl Column {
    /// The columns every kind has are described by its metadata.
    pub fn describe_standard(&mut self) {
        let field = match self.name.as_str() {
            "Name" => "name",
            "Age" | "Created At" => "creationTimestamp",
            _ => return,
        };
        self.described_by = format!("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta#{field}");
    }
}

/// Resources every request for which is answered with a warning.
const DEPRECATED: [(&str, &str, &str, &str); 2] = [
    ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("", "v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

impl Resource {
    /// What requests for a deprecated resource are warned of.
    pub fn deprecation(&self) -> Option<&str> {
        if let Some(custom) = &self.custom {
            return custom.deprecation.as_deref();
        }
        let own = (self.group.as_str(), self.version.as_str(), self.resource.as_str());
        DEPRECATED.iter().find(|(g, v, r, _)| (*g, *v, *r) == own).map(|(.., text)| *text)
    }

    /// Brings a tree into the form of objects of this version. Answers the strict errors: unknown fields. Empty lists and maps
    /// that were given stay, for rules that tell them from nothing, until [`Self::omit`].
    pub fn decode(&self, value: &mut serde_json::Value) -> Result<Vec<String>, DecodeError> {
        if let Some(custom) = &self.custom {
            return custom.decode(&self.version, Source::Request, value);
        }
        machinery::decode::decode_given(&self.types, self.ty, value)
    }

    /// As [`Self::decode`], of what server-side apply or admission made of what was decoded.
    pub fn decode_made(&self, value: &mut serde_json::Value) -> Result<(), DecodeError> {
        match &self.custom {
            Some(custom) => custom.decode(&self.version, Source::Made, value),
            None => machinery::decode::decode_given(&self.types, self.ty, value),
        }
        .map(drop)
    }

    /// Whether [`Self::omit`] would change the tree.
    pub fn has_hollow(&self, value: &serde_json::Value) -> bool {
        self.custom.is_none() && machinery::decode::has_hollow(&self.types, self.ty, value)
    }

    /// Takes away what Go does not print. Call it before an object is stored, shown, or its fields are accounted.
    pub fn omit(&self, value: &mut serde_json::Value) {
        if self.custom.is_none() {
            machinery::decode::omit(&self.types, self.ty, value);
        }
    }

    /// A row of a group and version with nothing in it: what those made at run time begin with.
    pub fn plain(group: &str, version: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: String::new(),
            singular: String::new(),
            kind: String::new(),
            namespaced: false,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Vec::new(),
            subresources: Vec::new(),
            storage_prefix: String::new(),
            storage_version: GroupVersion::default(),
            types: crate::shared_types(),
            ty: TypeId::default(),
            defaults: Defaults::default(),
            storage_version_hash: String::new(),
            name_rule: NameRule::Dns1123Subdomain,
            allow_create_on_update: false,
            allow_unconditional_update: false,
            graceful_delete: false,
            default_deletion: DefaultDeletion::Background,
            returns_deleted_object: false,
            expires: false,
            generation: Generation::ByStrategy,
            selectable: Vec::new(),
            selector_rejection: String::new(),
            reset_fields: Vec::new(),
            columns: Vec::new(),
            strategy: Arc::new(crate::strategy::Plain),
            custom: None,
        }
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |c| c.definition.list_kind.clone())
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group.clone(), self.version.clone(), self.kind.clone())
    }

    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group.clone(), self.version.clone(), self.resource.clone())
    }

    /// What is said to be missing where nothing has the name: upstream's component statuses call themselves by their singular.
    pub fn missing_resource(&self) -> GroupResource {
        let named = if self.resource == "componentstatuses" { &self.singular } else { &self.resource };
        GroupResource::new(&self.group, named.as_str())
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The kind that refusals of an object name: a custom resource's is what it says it is.
    pub fn refused_kind(&self, object: &serde_json::Value) -> GroupKind {
        if self.custom.is_none() {
            return self.stored_kind();
        }
        GroupKind { group: self.group.clone(), kind: machinery::object::str_at(object, "kind").to_owned() }
    }

    /// The kind as errors of validation name it: that of the stored object (an Event of events.k8s.io is one of the core group).
    pub fn stored_kind(&self) -> GroupKind {
        GroupKind { group: self.storage_version.group.clone(), kind: self.kind.clone() }
    }

    /// Fields a writer through a subresource does not own, as dotted paths; `""` is the resource itself.
    pub fn reset_fields_of(&self, subresource: &str) -> Vec<String> {
        match subresource {
            "" => self.reset_fields.clone(),
            "status" if self.custom.is_some() => vec!["metadata".to_owned(), "spec".to_owned()],
            "status" => crate::table::status_reset_fields(&self.group, &self.resource).iter().map(|p| (*p).to_owned()).collect(),
            "approval" => vec!["spec".to_owned(), "status.certificate".to_owned()],
            _ => Vec::new(),
        }
    }

    /// Puts back the metadata that writers through `status` may not change.
    pub fn keep_for_status(&self, new: &mut serde_json::Value, old: &serde_json::Value) {
        const ALL: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];
        let (Some(new), Some(old)) = (new.get_mut("metadata"), old.get("metadata")) else { return };
        for path in crate::table::status_reset_fields(&self.group, &self.resource) {
            match path.strip_prefix("metadata") {
                Some("") => ALL.iter().for_each(|key| crate::validate::tree::keep(new, old, key)),
                Some(rest) => crate::validate::tree::keep(new, old, rest.trim_start_matches('.')),
                None => {}
            }
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}
