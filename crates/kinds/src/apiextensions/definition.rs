//! The definition as a whole: group, scope, versions, names, subresources, columns, selectable fields, conversion, status, and
//! what an update may not change.

use machinery::names;
use machinery::structural::{ObjectMeta, Schema};
use serde_json::{Value, json};

use super::approval::approval;
use super::conversion::{self, ca_bundle, ca_problem, review_versions};
use super::costs::Costs;
use super::defaults::Defaults;
use super::field_path::field_path;
use super::keywords::{self, Strictness};
use super::spec::{Spec, schema_has};
use super::{go_json, structural};
use crate::validate::rules::{immutable, one_of};
use crate::validate::tree::{flag, has, list, opt, opt_s, s, same, strings};
use crate::validate::{Error, ErrorList, Path};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;

/// Fields that the root schema may set beside a status subresource, by their names in Go.
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// What is asked of a definition; an update need not mend what was wrong before.
struct Options {
    review_versions: bool,
    schemas: bool,
    structural: bool,
    pruned_defaults: bool,
    strictness: Strictness,
    allow_invalid_ca_bundle: bool,
    /// Versions whose schemas are as they were.
    unchanged: Vec<String>,
}

/// Errors of a new definition, but for its metadata.
pub fn validate(object: &Value) -> ErrorList {
    let options = Options {
        review_versions: true,
        schemas: true,
        structural: true,
        pruned_defaults: true,
        strictness: Strictness::ALL,
        allow_invalid_ca_bundle: true,
        unchanged: Vec::new(),
    };
    let mut errors = ErrorList::new();
    spec(object, options, &mut errors);
    rest(object, None, &mut errors);
    errors
}

/// Errors of an update, but for its metadata.
pub fn validate_update(new: &Value, old: &Value) -> ErrorList {
    let before = Spec::of(old);
    let none = |asked: &dyn Fn(&Value) -> bool| !before.schemas().any(|schema| schema_has(schema, asked));
    let invalid_keys = |v: &Value| {
        let mut errors = ErrorList::new();
        keywords::map_keys(v, &Path::new(""), &mut errors);
        !errors.is_empty()
    };
    let reviewed: Vec<&str> = opt(before.tree, "conversion").and_then(|c| opt(c, "webhook")).map(review_versions).unwrap_or_default();
    let at = Path::new("");
    let established = condition(old, "Established");
    let options = Options {
        review_versions: reviewed.is_empty() || reviewed.iter().any(|v| conversion::REVIEW_VERSIONS.contains(v)),
        schemas: before.shared("schema").is_some_and(|v| has(v, "openAPIV3Schema"))
            || before.versions.iter().all(|v| opt(v, "schema").is_some_and(|v| has(v, "openAPIV3Schema"))),
        structural: before.schemas().all(|v| structural::unsupported(v).is_none() && structural::validate(v, &at).is_empty()),
        pruned_defaults: !before.schemas().any(has_unpruned_defaults),
        strictness: Strictness {
            valid_types: none(&keywords::has_unknown_type),
            atomic_sets: none(&keywords::has_mergeable_set_items),
            map_keys: none(&invalid_keys),
        },
        allow_invalid_ca_bundle: !established || ca_bundle(before.tree).is_some_and(|b| !b.is_empty() && ca_problem(b).is_some()),
        unchanged: unchanged_versions(new, old),
    };
    let mut errors = ErrorList::new();
    spec(new, options, &mut errors);
    let (p, null) = (Path::new("spec"), Value::Null);
    let (a, b) = (new.get("spec").unwrap_or(&null), before.tree);
    let (names, old_names) = (a.get("names").unwrap_or(&null), b.get("names").unwrap_or(&null));
    let at_names = p.child("names");
    if established {
        immutable(a, b, "scope", &p, &mut errors);
        immutable(names, old_names, "kind", &at_names, &mut errors);
    }
    immutable(a, b, "group", &p, &mut errors);
    immutable(names, old_names, "plural", &at_names, &mut errors);
    rest(new, Some(old), &mut errors);
    errors
}

/// Versions that have the same schema before and after.
fn unchanged_versions(new: &Value, old: &Value) -> Vec<String> {
    let before = Spec::of(old).versions;
    let unchanged = |v: &&Value| before.iter().any(|old| s(old, "name") == s(v, "name") && same(v.get("schema"), old.get("schema")));
    Spec::of(new).versions.iter().filter(unchanged).map(|v| s(v, "name").to_owned()).collect()
}

/// Errors of an update of the status, but for its metadata.
pub fn validate_status_update(new: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    status_names(new, &mut errors);
    errors
}

fn status_names(object: &Value, e: &mut ErrorList) {
    let status = object.get("status").unwrap_or(&Value::Null);
    if let Some(names) = opt(status, "acceptedNames") {
        names_forms(names, &Path::new("status").child("acceptedNames"), e);
    }
}

/// Status, approval and `preserveUnknownFields`.
fn rest(object: &Value, old: Option<&Value>, e: &mut ErrorList) {
    status_names(object, e);
    stored_versions(object, e);
    approval(object, old, e);
    let was = old.is_some_and(|old| Spec::of(old).preserves_unknown_fields());
    if !was && Spec::of(object).preserves_unknown_fields() {
        const SAY_IT_IN_THE_SCHEMA: &str =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        e.push(Error::invalid(&Path::new("spec").child("preserveUnknownFields"), &json!(true), SAY_IT_IN_THE_SCHEMA));
    }
}

fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object.get("status").map_or(&[][..], |status| list(status, "conditions"));
    conditions.iter().any(|c| s(c, "type") == kind && s(c, "status") == "True")
}

fn spec(object: &Value, mut options: Options, e: &mut ErrorList) {
    let (spec, p) = (Spec::of(object), Path::new("spec"));
    group_and_scope(spec.tree, &p, e);
    if !spec.preserves_unknown_fields() {
        options.structural = true;
    }
    required_schemas(&spec, options.schemas, &p, e);
    let any = |asked: &dyn Fn(&Value) -> bool| spec.schemas().any(|schema| schema_has(schema, asked));
    if any(&|v| has(v, "default")) {
        options.structural = true;
        if spec.preserves_unknown_fields() {
            e.push(Error::invalid(&p.child("preserveUnknownFields"), &json!(true), "must be false in order to use defaults in the schema"));
        }
    }
    options.structural |= any(&has_extension);
    versions(&spec, &options, &p, e);
    let null = Value::Null;
    let names = spec.tree.get("names").unwrap_or(&null);
    let at_names = p.child("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        if s(names, key).is_empty() {
            e.push(Error::required(&at_names.child(key), ""));
        }
    }
    names_forms(names, &at_names, e);
    let has_status = |v: Option<&Value>| v.is_some_and(|v| has(v, "status"));
    let any_status = spec.versions.iter().any(|v| has_status(opt(v, "subresources")));
    if let Some(schema) = spec.shared("schema") {
        let first = spec.versions.first().map_or("", |v| s(v, "name"));
        validation(schema, first, any_status, &options, &p.child("validation"), e);
    }
    if let Some(given) = spec.shared("subresources") {
        subresources(given, &p.child("subresources"), e);
    }
    columns(spec.shared("additionalPrinterColumns"), &p.child("additionalPrinterColumns"), e);
    if let Some(fields) = spec.shared("selectableFields").and_then(Value::as_array).filter(|f| !f.is_empty()) {
        let at = p.child("selectableFields");
        match spec.shared("schema") {
            None => e.push(Error::invalid_str(&at, "", "may only be set when validations.schema is included")),
            Some(schema) => selectable_fields(fields, opt(schema, "openAPIV3Schema"), &p, e),
        }
    }
    if let Some(given) = opt(spec.tree, "conversion") {
        let strategy = s(given, "strategy");
        if strategy != "None" && spec.preserves_unknown_fields() {
            let at = p.child("conversion");
            e.push(Error::invalid_str(&at.child("strategy"), strategy, "must be None if spec.preserveUnknownFields is true"));
        }
        conversion::validate(given, options.review_versions, options.allow_invalid_ca_bundle, &p.child("conversion"), e);
    }
}

fn group_and_scope(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let (group, at) = (s(v, "group"), p.child("group"));
    let problems = names::dns1123_subdomain(group);
    if group.is_empty() {
        e.push(Error::required(&at, ""));
    } else if !problems.is_empty() {
        e.push(Error::invalid_str(&at, group, problems.join(",")));
    } else if !group.contains('.') {
        e.push(Error::invalid_str(&at, group, "should be a domain with at least one dot"));
    }
    enum_string(s(v, "scope"), &["Cluster", "Namespaced"], &p.child("scope"), e);
}

pub fn enum_string(value: &str, allowed: &[&str], at: &Path<'_>, e: &mut ErrorList) {
    if value.is_empty() {
        e.push(Error::required(at, ""));
    } else {
        one_of(at, value, allowed, e);
    }
}

fn required_schemas(spec: &Spec<'_>, required: bool, p: &Path<'_>, e: &mut ErrorList) {
    if spec.shared("schema").is_some_and(|v| has(v, "openAPIV3Schema")) || (!required && spec.preserves_unknown_fields()) {
        return;
    }
    let at = p.child("versions");
    for (index, version) in spec.versions.iter().enumerate() {
        let missing = !spec.own(version, "schema").is_some_and(|v| has(v, "openAPIV3Schema"));
        if missing && (required || flag(version, "served")) {
            let text = if required { "" } else { "because otherwise all fields are pruned" };
            e.push(Error::required(&at.index(index).child("schema").child("openAPIV3Schema"), text));
        }
    }
}

fn has_extension(v: &Value) -> bool {
    flag(v, "x-kubernetes-embedded-resource")
        || has(v, "x-kubernetes-preserve-unknown-fields")
        || flag(v, "x-kubernetes-int-or-string")
        || !list(v, "x-kubernetes-list-map-keys").is_empty()
        || has(v, "x-kubernetes-list-type")
        || !list(v, "x-kubernetes-validations").is_empty()
}

fn versions(spec: &Spec<'_>, options: &Options, p: &Path<'_>, e: &mut ErrorList) {
    let at_versions = p.child("versions");
    let label = |at: &Path<'_>, name: &str, e: &mut ErrorList| {
        let problems = names::dns1035_label(name);
        if !problems.is_empty() {
            e.push(Error::invalid_str(at, name, problems.join(",")));
        }
    };
    for (index, version) in spec.versions.iter().enumerate() {
        let at = at_versions.index(index);
        label(&at.child("name"), s(version, "name"), e);
        self::version(spec, version, options, &at, e);
    }
    let shown = |text: &str| Error {
        kind: machinery::field::ErrorType::Invalid,
        field: at_versions.to_string(),
        value: go_json::versions(spec),
        detail: text.to_owned(),
    };
    let name = |v: &Value| s(v, "name").to_owned();
    let distinct: std::collections::BTreeSet<String> = spec.versions.iter().map(name).collect();
    if distinct.len() < spec.versions.len() {
        e.push(shown("must contain unique version names"));
    }
    if spec.versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        e.push(shown("must have exactly one version marked as storage version"));
    }
    // The internal version names the first one once more.
    if let Some(first) = spec.versions.first().map(|v| s(v, "name")).filter(|name| !name.is_empty()) {
        label(&p.child("version"), first, e);
    }
}

fn version(spec: &Spec<'_>, version: &Value, options: &Options, p: &Path<'_>, e: &mut ErrorList) {
    deprecation(version, &p.child("deprecationWarning"), e);
    let subs = opt(version, "subresources");
    if let Some(schema) = spec.own(version, "schema") {
        validation(schema, s(version, "name"), subs.is_some_and(|v| has(v, "status")), options, &p.child("schema"), e);
    }
    if let Some(given) = spec.own(version, "subresources") {
        subresources(given, &p.child("subresources"), e);
    }
    columns(spec.own(version, "additionalPrinterColumns"), &p.child("additionalPrinterColumns"), e);
    if let Some(fields) = spec.own(version, "selectableFields").and_then(Value::as_array).filter(|f| !f.is_empty()) {
        match spec.own(version, "schema").and_then(|v| opt(v, "openAPIV3Schema")) {
            None => {
                let text = "may only be set when `version.schema.openAPIV3Schema` is not included";
                e.push(Error::invalid_str(&p.child("selectableFields"), "", text));
            }
            Some(schema) => selectable_fields(fields, Some(schema), p, e),
        }
    }
}

fn deprecation(version: &Value, at: &Path<'_>, e: &mut ErrorList) {
    let Some(text) = opt_s(version, "deprecationWarning") else { return };
    let mut problem = |detail: String| e.push(Error::invalid_str(at, text, detail));
    if !flag(version, "deprecated") {
        problem("can only be set for deprecated versions".to_owned());
        return;
    }
    if text.len() > 256 {
        problem("must be <= 256 characters long".to_owned());
    }
    if text.is_empty() {
        problem("must not be an empty string".to_owned());
    }
    if let Some((index, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        problem(format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"));
    }
}

fn names_forms(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for key in ["plural", "singular", "kind", "listKind"] {
        let (name, mixed) = (s(v, key), key.ends_with("ind"));
        let problems = names::dns1035_label(&if mixed { name.to_lowercase() } else { name.to_owned() });
        if !name.is_empty() && !problems.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            e.push(Error::invalid_str(&p.child(key), name, format!("{prefix}{}", problems.join(","))));
        }
    }
    let each = |key: &'static str, e: &mut ErrorList| {
        let at = p.child(key);
        for (index, name) in strings(v, key).enumerate() {
            let problems = names::dns1035_label(name);
            if !problems.is_empty() {
                e.push(Error::invalid_str(&at.index(index), name, problems.join(",")));
            }
        }
    };
    each("shortNames", e);
    let (kind, list_kind) = (s(v, "kind"), s(v, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        e.push(Error::invalid_str(&p.child("listKind"), list_kind, "kind and listKind may not be the same"));
    }
    each("categories", e);
}

fn defaults(pruned: bool) -> Defaults<'static> {
    Defaults { meta: object_meta(), pruned, budget: cel::Budget::new(cel::RUNTIME_BUDGET) }
}

/// The facts of `ObjectMeta`.
fn object_meta() -> ObjectMeta<'static> {
    let types = crate::types();
    ObjectMeta { types, ty: types.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap_or_default() }
}

/// One schema, given as `CustomResourceValidation`; `version` names it.
fn validation(given: &Value, version: &str, has_status: bool, options: &Options, p: &Path<'_>, e: &mut ErrorList) {
    let Some(schema) = opt(given, "openAPIV3Schema") else { return };
    let at = p.child("openAPIV3Schema");
    let before = e.len();
    if has_status {
        root_beside_status(schema, p, e);
    }
    if flag(schema, "nullable") {
        e.push(Error::forbidden(&p.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root"));
    }
    let mut unsupported = None;
    let mut costs = None;
    if options.structural {
        unsupported = structural::unsupported(schema);
        if unsupported.is_none() {
            let mut found = structural::validate(schema, &at);
            if found.is_empty() {
                match Schema::parse(schema) {
                    Ok(parsed) => defaults(options.pruned_defaults).validate(&parsed, &at, &mut found),
                    Err(why) => found.push(Error::invalid_str(&at, "", why.to_string())),
                }
            }
            if found.is_empty() {
                costs = Some(Costs::new(options.unchanged.iter().any(|v| v == version)));
            }
            e.extend(found);
        }
    }
    e.extend(keywords::validate(schema, options.strictness, costs, &at));
    if let Some(why) = unsupported.filter(|_| e.len() == before) {
        e.push(Error::invalid_str(&at, "", why));
    }
}

fn has_unpruned_defaults(schema: &Value) -> bool {
    let at = Path::new("");
    if structural::unsupported(schema).is_some() || !structural::validate(schema, &at).is_empty() {
        return false;
    }
    let Ok(parsed) = Schema::parse(schema) else { return false };
    let errors_with = |pruned: bool| {
        let mut errors = ErrorList::new();
        defaults(pruned).validate(&parsed, &at, &mut errors);
        errors.len()
    };
    errors_with(true) > errors_with(false)
}

/// A status subresource is validated by `properties.status`, so the root may not say more than that keeps.
fn root_beside_status(schema: &Value, p: &Path<'_>, e: &mut ErrorList) {
    for name in go_json::set_fields(schema) {
        if name == "Type" {
            if s(schema, "type") != "object" {
                let text = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                e.push(Error::invalid_str(&p.child("openAPIV3Schema.type"), s(schema, "type"), text));
                return;
            }
        } else if !AT_ROOT.contains(&name) {
            let allowed = AT_ROOT.join(" ");
            e.push(Error {
                kind: machinery::field::ErrorType::Invalid,
                field: p.child("openAPIV3Schema").to_string(),
                value: go_json::schema(schema),
                detail: format!("only [{allowed}] fields are allowed at the root of the schema if the status subresource is enabled"),
            });
            return;
        }
    }
}

fn simple_json_path(path: &str, at: &Path<'_>, e: &mut ErrorList) -> bool {
    let simple = path.starts_with('.');
    if !simple {
        e.push(Error::invalid_str(at, path, "must be a simple json path starting with ."));
    }
    simple
}

fn subresources(v: &Value, p: &Path<'_>, e: &mut ErrorList) {
    let Some(scale) = opt(v, "scale") else { return };
    for (key, at, root) in
        [("specReplicasPath", "scale.specReplicasPath", ".spec"), ("statusReplicasPath", "scale.statusReplicasPath", ".status")]
    {
        let (path, at) = (s(scale, key), p.child(at));
        if path.is_empty() {
            e.push(Error::required(&at, ""));
        } else if simple_json_path(path, &at, e) && path.strip_prefix(root).is_none_or(|rest| !rest.starts_with('.')) {
            e.push(Error::invalid_str(&at, path, format!("should be a json path under {root}")));
        }
    }
    let (path, at) = (s(scale, "labelSelectorPath"), p.child("scale.labelSelectorPath"));
    let below = |root: &str| path.starts_with(root);
    if !path.is_empty() && simple_json_path(path, &at, e) && !below(".spec.") && !below(".status.") {
        e.push(Error::invalid_str(&at, path, "should be a json path under either .spec or .status"));
    }
}

fn columns(given: Option<&Value>, p: &Path<'_>, e: &mut ErrorList) {
    for (index, column) in given.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let p = p.index(index);
        if s(column, "name").is_empty() {
            e.push(Error::required(&p.child("name"), ""));
        }
        let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
        match s(column, "type") {
            "" => e.push(Error::required(&p.child("type"), one_of(&COLUMN_TYPES))),
            kind if !COLUMN_TYPES.contains(&kind) => e.push(Error::invalid_str(&p.child("type"), kind, one_of(&COLUMN_TYPES))),
            _ => {}
        }
        let format = s(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            e.push(Error::invalid_str(&p.child("format"), format, one_of(&COLUMN_FORMATS)));
        }
        let (path, at) = (s(column, "jsonPath"), p.child("JSONPath"));
        if path.is_empty() {
            e.push(Error::required(&at, ""));
        } else {
            simple_json_path(path, &at, e);
        }
    }
}

fn selectable_fields(fields: &[Value], schema: Option<&Value>, p: &Path<'_>, e: &mut ErrorList) {
    if let Some(why) = schema.and_then(structural::unsupported) {
        e.push(Error::invalid_str(&p.child("schema.openAPIV3Schema"), "", why));
        return;
    }
    let parsed = schema.and_then(|v| Schema::parse(v).ok()).unwrap_or_default();
    let at = p.child("selectableFields");
    let mut seen: Vec<String> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let (path, at) = (s(field, "jsonPath"), at.index(index));
        let at = at.child("jsonPath");
        if path.is_empty() {
            e.push(Error::required(&at, ""));
            continue;
        }
        let found = match field_path(path, &parsed, false) {
            Ok(found) => found,
            Err(why) => {
                e.push(Error::invalid_str(&at, path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if found.root == "metadata" {
            e.push(Error::invalid_str(&at, path, "must not point to fields in metadata"));
        }
        if !matches!(found.schema.kind.map(|k| k.name()), Some("string" | "boolean" | "integer")) {
            const SCALARS: &str =
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            e.push(Error::invalid_str(&at, path, SCALARS));
        }
        if seen.contains(&found.text) {
            e.push(Error::duplicate(&at, &json!(path)));
        } else {
            seen.push(found.text);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        e.push(Error::too_many(&at, seen.len(), SELECTABLE_MAX));
    }
}

fn stored_versions(object: &Value, e: &mut ErrorList) {
    let null = Value::Null;
    let stored: Vec<&str> = strings(object.get("status").unwrap_or(&null), "storedVersions").collect();
    let at = Path::new("status");
    let at = at.child("storedVersions");
    if stored.is_empty() {
        e.push(Error::invalid(&at, &null, "must have at least one stored version"));
        return;
    }
    let versions = Spec::of(object).versions;
    for name in versions.iter().filter(|v| flag(v, "storage")).map(|v| s(v, "name")).filter(|name| !stored.contains(name)) {
        e.push(Error::invalid(&at, &json!(stored), format!("must have the storage version {name}")));
    }
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| s(v, "name") == **name)) {
        let text = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage \
             migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        e.push(Error::invalid_str(&at.index(index), name, text));
    }
}
