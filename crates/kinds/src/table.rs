//! The table of built-in resources, built once from `facts/*.tsv` (made by `xtask facts`), in discovery's order.
//!
//! Custom resources and aggregated APIs are not here: `apiserver` keeps rows of the same type for those.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use machinery::defaults::Defaults;
use machinery::gvk::{GroupVersion, GroupVersionKind, GroupVersionResource};
use machinery::schema::{Field, Type, TypeId};
use mix::Fnv64;

use crate::resource::{Column, DefaultDeletion, Generation, NameRule, Resource, Selectable, Subresource};
use crate::types::{full_name, shared_types, types};

static TABLE: LazyLock<Table> = LazyLock::new(Table::load);

/// Kinds that hold a pod template, and where its pod spec is.
const TEMPLATES: [(&str, &str); 7] = [
    ("Deployment", "spec.template.spec"),
    ("DaemonSet", "spec.template.spec"),
    ("ReplicaSet", "spec.template.spec"),
    ("StatefulSet", "spec.template.spec"),
    ("Job", "spec.template.spec"),
    ("ReplicationController", "spec.template.spec"),
    ("PodTemplate", "template.spec"),
];

/// Kinds every group version knows beside its own.
const IN_EVERY_VERSION: [&str; 6] = ["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"];

/// Kinds of `v1` that are no resources, all in meta/v1.
const UNVERSIONED: [&str; 5] = ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"];

/// What writers through `status` do not own where it is more than `spec`.
const STATUS_RESETS: [(&str, &str, &[&str]); 9] = [
    ("", "pods", &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
    ("apps", "deployments", &["spec", "metadata.labels"]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &["spec", "metadata"]),
    ("apiextensions.k8s.io", "customresourcedefinitions", &["spec", "metadata"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["spec", "status.conditions"]),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &["spec", "metadata"]),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &["spec", "metadata"]),
    ("networking.k8s.io", "servicecidrs", &["spec", "metadata"]),
    ("storage.k8s.io", "volumeattachments", &["spec", "metadata"]),
];

pub(crate) fn status_reset_fields(group: &str, resource: &str) -> &'static [&'static str] {
    STATUS_RESETS.iter().find(|(g, r, _)| *g == group && *r == resource).map_or(&["spec"], |(_, _, paths)| paths)
}

/// All built-in resources.
pub fn table() -> &'static Table {
    &TABLE
}

pub struct Table {
    rows: Vec<Arc<Resource>>,
    group_versions: Vec<GroupVersion>,
    by_resource: HashMap<GroupVersionResource, usize>,
    /// Hashes of the same names, sorted, with the row.
    by_hash: Vec<(u64, usize)>,
    by_kind: HashMap<GroupVersionKind, usize>,
}

impl Table {
    /// Every resource in every version served, in discovery's order.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.rows
    }

    /// Group versions served: the core group first, then groups as discovery lists them, the preferred version of each first.
    pub fn group_versions(&self) -> &[GroupVersion] {
        &self.group_versions
    }

    pub fn by_resource(&self, gvr: &GroupVersionResource) -> Option<&Arc<Resource>> {
        self.by_resource.get(gvr).map(|at| &self.rows[*at])
    }

    /// As [`Table::by_resource`], for who has no names of their own: every request asks this.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Resource>> {
        let hash = hash([group, version, resource]);
        let from = self.by_hash.partition_point(|(h, _)| *h < hash);
        let same = self.by_hash[from..].iter().take_while(|(h, _)| *h == hash).map(|(_, at)| &self.rows[*at]);
        same.filter(|r| r.group == group && r.version == version && r.resource == resource).last()
    }

    pub fn by_kind(&self, gvk: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_kind.get(gvk).map(|at| &self.rows[*at])
    }

    /// The resources of one group version.
    pub fn of<'a>(&'a self, gv: &'a GroupVersion) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.rows.iter().filter(|r| r.group == gv.group && r.version == gv.version)
    }

    /// The type of any kind a body may have: a resource's, its list's, a subresource's (`Scale`, `Eviction`), an option's
    /// (`DeleteOptions` is in every group version).
    pub fn type_of(&self, gvk: &GroupVersionKind) -> Option<TypeId> {
        if let Some(row) = self.by_kind(gvk) {
            return Some(row.ty);
        }
        let in_meta = IN_EVERY_VERSION.contains(&gvk.kind.as_str())
            || gvk.kind == "WatchEvent"
            || (gvk.group.is_empty() && gvk.version == "v1" && UNVERSIONED.contains(&gvk.kind.as_str()))
            || gvk.group == "meta.k8s.io";
        let package = match gvk.group.as_str() {
            _ if in_meta => "io.k8s.apimachinery.pkg.apis.meta.v1".to_owned(),
            "" => format!("io.k8s.api.core.{}", gvk.version),
            "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{}", gvk.version),
            "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{}", gvk.version),
            "internal.apiserver.k8s.io" => format!("io.k8s.api.apiserverinternal.{}", gvk.version),
            group => format!("io.k8s.api.{}.{}", group.split('.').next().unwrap_or(group), gvk.version),
        };
        types().named(&format!("{package}.{}", gvk.kind))
    }

    fn load() -> Self {
        let columns = load_columns();
        let mut defaults = load_defaults();
        let mut table = Table {
            rows: Vec::new(),
            group_versions: Vec::new(),
            by_resource: HashMap::new(),
            by_hash: Vec::new(),
            by_kind: HashMap::new(),
        };
        for line in include_str!("../facts/resources.tsv").lines().filter(|l| !l.starts_with('#')) {
            let row = load_row(line, &columns, &mut defaults);
            let gv = GroupVersion::new(row.group.clone(), row.version.clone());
            if !table.group_versions.contains(&gv) {
                table.group_versions.push(gv);
            }
            table.by_resource.insert(row.gvr(), table.rows.len());
            table.by_kind.insert(row.gvk(), table.rows.len());
            table.by_hash.push((hash([&row.group, &row.version, &row.resource]), table.rows.len()));
            table.rows.push(Arc::new(row));
        }
        table.by_hash.sort_unstable();
        table
    }
}

/// FNV: names of our own, so nobody can make them meet.
fn hash(names: [&str; 3]) -> u64 {
    Fnv64::of(names.into_iter().flat_map(|name| name.bytes().chain([0])))
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn load_row(line: &str, columns: &HashMap<&str, Vec<Column>>, defaults: &mut HashMap<(String, String), Defaults>) -> Resource {
    let cells: Vec<&str> = line.split('\t').collect();
    let cell = |at: usize| cells.get(at).copied().unwrap_or("");
    let (group, version, resource, kind) = (cell(0), cell(1), cell(2), cell(4));
    let key = if group.is_empty() { resource.to_owned() } else { format!("{group}/{resource}") };
    let api_version = GroupVersion::new(group, version).to_string();
    let flag = |letter: char| cell(14).contains(letter);
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
        singular: cell(3).to_owned(),
        kind: kind.to_owned(),
        namespaced: cell(5) == "n",
        short_names: words(cell(6)),
        categories: words(cell(7)),
        verbs: words(cell(8)),
        subresources: cell(9).split(' ').filter_map(load_subresource).collect(),
        storage_prefix: cell(10).to_owned(),
        storage_version: GroupVersion::parse(cell(11)).unwrap_or_default(),
        types: shared_types(),
        ty: types().named(&full_name(cell(12))).unwrap_or_default(),
        defaults: defaults.remove(&(api_version, kind.to_owned())).unwrap_or_default(),
        storage_version_hash: cell(20).to_owned(),
        name_rule: match cell(13) {
            "label" => NameRule::Dns1123Label,
            "label1035" => NameRule::Dns1035Label,
            "segment" => NameRule::PathSegment,
            "strategy" => NameRule::ByStrategy,
            "declared" => NameRule::Declared,
            _ => NameRule::Dns1123Subdomain,
        },
        allow_create_on_update: flag('c'),
        allow_unconditional_update: flag('u'),
        graceful_delete: flag('g'),
        default_deletion: match cell(15) {
            "OrphanDependents" => DefaultDeletion::Orphan,
            "Unsupported" => DefaultDeletion::Unsupported,
            _ => DefaultDeletion::Background,
        },
        returns_deleted_object: flag('d'),
        expires: flag('t'),
        generation: match cell(16) {
            "spec" => Generation::Spec,
            "spec+annotations" => Generation::SpecOrAnnotations,
            "spec+labels" => Generation::SpecOrLabels,
            "once" => Generation::Once,
            "updates" => Generation::Updates,
            "strategy" => Generation::ByStrategy,
            _ => Generation::Untouched,
        },
        selectable: cell(17).split(',').filter(|s| !s.is_empty()).map(load_selectable).collect(),
        selector_rejection: cell(18).to_owned(),
        reset_fields: words(cell(19)),
        columns: columns.get(key.as_str()).cloned().unwrap_or_default(),
        strategy: crate::strategies::strategy_for(group, resource),
        custom: None,
    }
}

/// `scale=autoscaling/v1/Scale:get,patch,update`
fn load_subresource(text: &str) -> Option<Subresource> {
    let (name, rest) = text.split_once('=')?;
    let (kind, verbs) = rest.split_once(':')?;
    let mut parts = kind.split('/');
    let kind = GroupVersionKind::new(parts.next()?, parts.next()?, parts.next()?);
    Some(Subresource { name: name.to_owned(), kind, verbs: words(verbs) })
}

/// `label`, `label=path` or `label=path:default`
fn load_selectable(text: &str) -> Selectable {
    let (label, rest) = text.split_once('=').unwrap_or((text, text));
    let (path, default) = rest.split_once(':').unwrap_or((rest, ""));
    Selectable { label: label.to_owned(), path: path.to_owned(), default: default.to_owned() }
}

fn load_columns() -> HashMap<&'static str, Vec<Column>> {
    let texts = load_column_texts();
    let mut out: HashMap<&str, Vec<Column>> = HashMap::new();
    for line in include_str!("../facts/columns.tsv").lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or("").to_owned();
        let priority = cell(4).parse().unwrap_or(0);
        let mut column = Column { name: cell(1), column_type: cell(2), format: cell(3), priority, ..Column::default() };
        match texts.get(&(cells.first().copied().unwrap_or(""), cell(1).as_str())) {
            Some(text) => match text.strip_prefix('=') {
                Some(own) => own.clone_into(&mut column.description),
                None => (*text).clone_into(&mut column.described_by),
            },
            None => column.describe_standard(),
        }
        out.entry(cells.first().copied().unwrap_or("")).or_default().push(column);
    }
    out
}

fn load_column_texts() -> HashMap<(&'static str, &'static str), &'static str> {
    let lines = include_str!("../facts/column-texts.tsv").lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let (resource, rest) = line.split_once('\t')?;
            let (column, text) = rest.split_once('\t')?;
            Some(((resource, column), text))
        })
        .collect()
}

fn load_defaults() -> HashMap<(String, String), Defaults> {
    let mut out: HashMap<(String, String), Defaults> = HashMap::new();
    for line in include_str!("../facts/defaults.tsv").lines().filter(|l| !l.starts_with('#')) {
        let mut cells = line.splitn(4, '\t');
        let mut cell = || cells.next().unwrap_or("");
        let (api_version, kind, path, value) = (cell(), cell(), cell(), cell());
        let Ok(value) = serde_json::from_str(value) else { continue };
        let zero_is_missing = type_name(api_version, kind).and_then(|t| field_at(t, path)).is_some_and(|f| !f.pointer);
        out.entry((api_version.to_owned(), kind.to_owned())).or_default().add(path, value, zero_is_missing);
    }
    // A CronJob's job has no defaults of a Job's, only those of its pod template.
    let pod = out.get(&("v1".to_owned(), "Pod".to_owned())).cloned().unwrap_or_default();
    let cron = ("CronJob", "spec.jobTemplate.spec.template.spec");
    for (kind, to) in TEMPLATES.into_iter().chain([cron]) {
        let api_version = match kind {
            "Job" | "CronJob" => "batch/v1",
            "ReplicationController" | "PodTemplate" => "v1",
            _ => "apps/v1",
        };
        out.entry((api_version.to_owned(), kind.to_owned())).or_default().graft(to, &pod, "spec", &["enableServiceLinks"]);
    }
    out
}

fn type_name(api_version: &str, kind: &str) -> Option<TypeId> {
    let gv = GroupVersion::parse(api_version).ok()?;
    let group = if gv.group.is_empty() { "core" } else { gv.group.split('.').next()? };
    types().named(&format!("io.k8s.api.{group}.{}.{kind}", gv.version))
}

fn field_at(ty: TypeId, path: &str) -> Option<&'static Field> {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let Type::Struct(s) = types().get(ty) else { return None };
    let field = s.field(step.trim_end_matches("[]"))?;
    if rest.is_empty() {
        return Some(field);
    }
    let below = match types().get(field.ty) {
        Type::List(l) => l.elem,
        Type::Map(m) => m.elem,
        _ => field.ty,
    };
    field_at(below, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(group: &str, version: &str, resource: &str) -> &'static Resource {
        table().by_resource(&GroupVersionResource::new(group, version, resource)).unwrap()
    }

    #[test]
    fn every_row_has_a_type_and_what_is_stored_has_a_prefix() {
        for row in table().resources() {
            assert!(matches!(types().get(row.ty), Type::Struct(s) if s.name.ends_with(&format!(".{}", row.kind))), "{}", row.gvr());
            if row.verbs.iter().any(|v| v == "watch") {
                assert!(row.storage_prefix.starts_with("/registry/"), "{}: {}", row.gvr(), row.storage_prefix);
                assert!(!row.storage_version.version.is_empty(), "{}", row.gvr());
                assert!(!row.columns.is_empty() || row.group == "apiextensions.k8s.io", "{} has no columns", row.gvr());
                assert!(!row.selectable.is_empty(), "{}", row.gvr());
            }
        }
        assert_eq!(table().resources().len(), 68);
    }

    #[test]
    fn a_row_of_a_table_has_a_cell_for_each_column() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z"}, "spec": {}, "status": {}});
        let differing: Vec<String> = table()
            .resources()
            .iter()
            .filter(|row| row.verbs.iter().any(|v| v == "watch") && row.group != "apiextensions.k8s.io")
            .filter_map(|row| {
                let cells = row.strategy.cells(&object, 1_800_000_000).map_or(2, |c| c.len());
                // Upstream's rows of addresses have an age that no column names.
                let wanted = row.columns.len() + usize::from(row.resource == "ipaddresses");
                (cells != wanted).then(|| format!("{}: {cells} of {}", row.gvr(), row.columns.len()))
            })
            .collect();
        assert!(differing.is_empty(), "{differing:#?}");
    }

    #[test]
    fn rows_say_what_upstream_says() {
        let pods = row("", "v1", "pods");
        assert!(pods.namespaced && pods.graceful_delete && pods.returns_deleted_object);
        assert_eq!(pods.short_names, ["po"]);
        assert_eq!(pods.subresource("eviction").unwrap().kind, GroupVersionKind::new("policy", "v1", "Eviction"));
        assert_eq!(pods.selectable.iter().find(|s| s.label == "spec.host").unwrap().path, "spec.nodeName");
        assert_eq!(pods.reset_fields, ["status"]);
        let deployments = row("apps", "v1", "deployments");
        assert_eq!(deployments.subresource("scale").unwrap().kind, GroupVersionKind::new("autoscaling", "v1", "Scale"));
        assert_eq!(deployments.generation, Generation::SpecOrAnnotations);
        assert_eq!(row("", "v1", "endpoints").storage_prefix, "/registry/services/endpoints");
        assert_eq!(row("certificates.k8s.io", "v1", "certificatesigningrequests").reset_fields, ["spec", "status"]);
        assert_eq!(table().group_versions()[0], GroupVersion::new("", "v1"));
    }

    #[test]
    fn options_and_subresource_kinds_have_types() {
        for (group, version, kind) in [
            ("apps", "v1", "DeleteOptions"),
            ("", "v1", "Status"),
            ("policy", "v1", "Eviction"),
            ("", "v1", "PodList"),
            ("autoscaling", "v1", "Scale"),
        ] {
            assert!(table().type_of(&GroupVersionKind::new(group, version, kind)).is_some(), "{group} {kind}");
        }
    }

    #[test]
    fn templates_take_the_defaults_of_pods() {
        let mut object = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}, "strategy": {}}});
        row("apps", "v1", "deployments").defaults.apply(&mut object);
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"], "/dev/termination-log");
        assert_eq!(object["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert!(object["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
        assert_eq!(object["spec"]["strategy"]["type"], "RollingUpdate");
    }
}
