//! Makes the tables in `crates/kinds/facts` from a directory of extracted Kubernetes facts (TSV and discovery JSON).
//! Only names, numbers and keys go in: no descriptions. `kinds::types` and `kinds::table` read the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

type Row = HashMap<String, String>;

/// Packages whose types the API server speaks.
const PACKAGES: [&str; 5] = [
    "io.k8s.api.",
    "io.k8s.apimachinery.pkg.apis.meta.",
    "io.k8s.apimachinery.pkg.runtime.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.",
];

/// Struct types that Go marshals by hand; `kinds::types` knows their forms.
const SPECIAL: [&str; 5] = ["RawExtension", "JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"];

pub fn run(reference: Option<&str>) -> Result<()> {
    let reference = PathBuf::from(reference.context("which directory? usage: facts PATH_TO_REFERENCE")?);
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/kinds/facts");
    std::fs::create_dir_all(&out)?;
    for (name, text) in [
        ("../tests/surface.tsv", surface(&reference)?),
        ("types.txt", types(&reference)?),
        ("resources.tsv", resources(&reference)?),
        ("columns.tsv", columns(&reference)?),
        ("defaults.tsv", defaults(&reference)?),
    ] {
        std::fs::write(out.join(name), &text).with_context(|| format!("writing {name}"))?;
        println!("{name}: {} lines, {} bytes", text.lines().count(), text.len());
    }
    Ok(())
}

fn read_tsv(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("empty table")?.split('\t').collect();
    Ok(lines.map(|line| header.iter().zip(line.split('\t')).map(|(k, v)| ((*k).to_owned(), v.to_owned())).collect()).collect())
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A column's text, `""` for `-`.
fn col<'a>(row: &'a Row, name: &str) -> &'a str {
    match row.get(name).map(String::as_str) {
        None | Some("-") => "",
        Some(text) => text,
    }
}

/// What is declared: structs with fields, and named scalars.
struct Known {
    structs: BTreeSet<String>,
    scalars: BTreeSet<String>,
}

/// A definition's name, or that of the type it is an alias of.
fn canonical(name: &str, known: &Known) -> String {
    if !known.structs.contains(name) {
        for (alias, of) in [("v1beta1.", "v1."), ("v1alpha1.", "v1.")] {
            let renamed = name.replace(alias, of);
            if renamed != name && known.structs.contains(&renamed) {
                return renamed;
            }
        }
    }
    name.to_owned()
}

fn types(reference: &Path) -> Result<String> {
    let rows = read_tsv(&reference.join("fields.tsv"))?;
    let declared = read_tsv(&reference.join("types.tsv"))?;
    let scalars = declared.iter().filter(|r| col(r, "shape") == "scalar").map(|r| col(r, "definition").to_owned()).collect();
    let mut known = Known { structs: rows.iter().map(|r| col(r, "definition").to_owned()).collect(), scalars };
    let mut atomic: BTreeSet<String> = BTreeSet::new();
    for row in &declared {
        let name = col(row, "definition");
        if col(row, "markers").contains("structType=atomic") || col(row, "markers").contains("mapType=atomic") {
            atomic.insert(name.to_owned());
        }
        // Structs without fields are types too, unless they are an alias of one that has some.
        if col(row, "shape") == "struct" && !known.structs.contains(name) && canonical(name, &known) == name {
            known.structs.insert(name.to_owned());
        }
    }
    let swagger = read_json(&reference.join("swagger.json"))?;
    for (name, def) in swagger["definitions"].as_object().into_iter().flatten() {
        if def["x-kubernetes-map-type"] == "atomic" {
            atomic.insert(name.clone());
        }
    }
    let mut by_type: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for name in &known.structs {
        if PACKAGES.iter().any(|p| name.starts_with(p)) && !SPECIAL.contains(&name.rsplit('.').next().unwrap_or("")) {
            by_type.insert(name, Vec::new());
        }
    }
    for row in &rows {
        if let Some(list) = by_type.get_mut(col(row, "definition")) {
            list.push(row);
        }
    }
    // Types of apimachinery that are Go machinery, not API: those with an interface field, or nothing in them.
    by_type.retain(|name, fields| {
        !fields.iter().any(|f| col(f, "shape") == "interface") && (!name.contains(".runtime.") || name.ends_with("Unknown"))
    });
    let mut out = String::from("# Made by `cargo run -p xtask -- facts`. Syntax: see kinds/src/types.rs.\n");
    for (name, fields) in &by_type {
        let package = name.rsplit_once('.').map_or("", |(p, _)| p);
        writeln!(out, "#{}{}", abbreviate(name), if atomic.contains(*name) { " atomic" } else { "" })?;
        for field in fields {
            out.push_str(&field_line(field, package, &known)?);
        }
    }
    Ok(out)
}

fn field_line(row: &Row, package: &str, known: &Known) -> Result<String> {
    let json = col(row, "json");
    let inline = col(row, "inline") == "1";
    if json.is_empty() && !inline {
        return Ok(String::new());
    }
    let go = col(row, "go_field");
    let mut capitalised = json.to_owned();
    capitalised.get_mut(..1).map(str::make_ascii_uppercase);
    let go = if capitalised == go { "" } else { go };
    let wrapped = col(row, "pb_type").contains("ExtraValue") || col(row, "pb_type").contains("OptionalNames");
    let ty = type_expr(col(row, "shape"), col(row, "elem"), package, known, wrapped);
    Ok(format!("{}\t{go}\t{ty}\t{}\n", if inline { "<" } else { json }, flags(row, known)))
}

fn flags(row: &Row, known: &Known) -> String {
    let mut flags: Vec<String> = Vec::new();
    let number = col(row, "pb_num");
    if !number.is_empty() {
        flags.push(number.to_owned());
    }
    let mut letters = String::new();
    if col(row, "ptr") == "1" {
        letters.push('p');
    }
    letters.push_str(col(row, "omit"));
    if col(row, "required") == "1" {
        letters.push('r');
    }
    if !letters.is_empty() {
        flags.push(letters);
    }
    match col(row, "list_type") {
        "map" => flags.push(format!("map:{}", col(row, "list_map_keys"))),
        "set" => flags.push("set".to_owned()),
        _ => {}
    }
    match (col(row, "map_type"), col(row, "shape")) {
        ("atomic", _) => flags.push("atomic".to_owned()),
        ("granular", "struct") => flags.push("granular".to_owned()),
        _ => {}
    }
    let strategy = col(row, "patch_strategy");
    if strategy.contains("merge") {
        flags.push(format!("merge:{}", col(row, "merge_key")));
    }
    if strategy.contains("retainKeys") {
        flags.push("retain".to_owned());
    }
    if let Some(name) = go_type(row, known) {
        flags.push(format!("go:{name}"));
    }
    let default = match col(row, "default") {
        "ref(AzureDataDiskCachingReadWrite)" => "\"ReadWrite\"",
        "ref(AzureSharedBlobDisk)" => "\"Shared\"",
        text => text,
    };
    if !default.is_empty() && default != "{}" {
        flags.push(format!("default:{default}"));
    }
    flags.join(" ")
}

/// The Go type of a field where it does not follow from its shape: named scalars of other packages, maps with named keys.
fn go_type(row: &Row, known: &Known) -> Option<String> {
    let (package, _) = col(row, "definition").rsplit_once('.')?;
    let version = package.rsplit('.').next()?;
    let qualified =
        |name: &str| if known.scalars.contains(&format!("{package}.{name}")) { format!("{version}.{name}") } else { format!("v1.{name}") };
    let named = |text: &str| text.split_once('(').and_then(|(_, n)| n.strip_suffix(')')).map(qualified);
    let elem = col(row, "elem");
    if col(row, "shape") != "map" {
        return named(elem)
            .filter(|n| !known.scalars.contains(&format!("{package}.{}", n.split('.').nth(1).unwrap_or(""))) && !n.ends_with(".UID"));
    }
    let (key, value) = elem.split_once(':')?;
    let value_type = match value {
        "list<string>" => return Some(format!("{version}.ExtraValue")).filter(|_| col(row, "pb_type").contains("ExtraValue")),
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "resource.Quantity".to_owned(),
        _ => named(value).unwrap_or_else(|| value.rsplit('.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(".")),
    };
    let resource_list =
        key == "string(ResourceName)" && value_type == "resource.Quantity" && !col(row, "definition").contains("NodeAllocatable");
    named(key).filter(|_| !resource_list).map(|key| format!("map[{key}]{value_type}"))
}

fn type_expr(shape: &str, elem: &str, package: &str, known: &Known, wrapped: bool) -> String {
    match shape {
        "list" => format!("[{}", elem_expr(elem, package, known, wrapped)),
        "map" => format!("{{{}", elem_expr(elem.split_once(':').map_or(elem, |(_, value)| value), package, known, wrapped)),
        _ => elem_expr(elem, package, known, wrapped),
    }
}

fn elem_expr(elem: &str, package: &str, known: &Known, wrapped: bool) -> String {
    if let Some(inner) = elem.strip_prefix("list<").and_then(|e| e.strip_suffix('>')) {
        return format!("{}{}", if wrapped { "(" } else { "[" }, elem_expr(inner, package, known, false));
    }
    let base = elem.split('(').next().unwrap_or(elem);
    let scalar = match base {
        "string" => "s",
        "bool" => "b",
        "int" | "int64" | "time.Duration" => "l",
        "int8" | "int16" | "int32" => "i",
        "uint8" | "uint32" => "w",
        "uint64" => "x",
        "float32" => "f",
        "float64" => "d",
        "bytes" => "y",
        "interface" | "io.k8s.apimachinery.pkg.runtime.RawExtension" => "*",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "*",
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "q",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "o",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "t",
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "u",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Duration" => "D",
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => "F",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => "|a",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => "|b",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => "|s",
        _ => "",
    };
    if !scalar.is_empty() {
        let named = elem.split_once('(').and_then(|(_, n)| n.strip_suffix(')'));
        return named.map_or_else(|| scalar.to_owned(), |n| format!("{scalar}{n}"));
    }
    let name = canonical(elem, known);
    match name.rsplit_once('.') {
        Some((p, short)) if p == package => format!("@{short}"),
        _ => format!("@{}", abbreviate(&name)),
    }
}

fn abbreviate(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.") {
        return format!("^{rest}");
    }
    name.strip_prefix("io.k8s.api.").map_or_else(|| name.to_owned(), |rest| format!("~{rest}"))
}

/// Groups in discovery's order, with the versions served by default in order of preference.
fn group_versions(reference: &Path) -> Result<Vec<(String, String)>> {
    let groups = read_json(&reference.join("discovery/apis.json"))?;
    let mut out = vec![(String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            out.push((text(&group["name"]), text(&version["version"])));
        }
    }
    Ok(out)
}

fn words(value: &Value) -> String {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn resources(reference: &Path) -> Result<String> {
    let strategies = read_tsv(&reference.join("resource-strategy.tsv"))?;
    let selectable = read_tsv(&reference.join("selectable-fields.tsv"))?;
    let declared = declared_names(reference)?;
    let mut out = String::from("# Made by `cargo run -p xtask -- facts`. Columns: see kinds/src/table.rs.\n");
    for (group, version) in group_versions(reference)? {
        let file = if group.is_empty() { format!("api__{version}.json") } else { format!("apis__{group}__{version}.json") };
        let list = read_json(&reference.join("discovery").join(file))?;
        let items = list["resources"].as_array().context("no resources")?;
        for item in items {
            let name = item["name"].as_str().unwrap_or_default();
            let key = if group.is_empty() { "core" } else { &group };
            let strategy = strategies.iter().find(|r| col(r, "group") == key && col(r, "resource") == name);
            let Some(strategy) = strategy else { continue };
            if !col(strategy, "served_default").split(',').any(|v| v == version) {
                continue;
            }
            let gv = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            let fields = selectable.iter().find(|r| col(r, "groupVersion") == gv && col(r, "resource") == name);
            let kind = item["kind"].as_str().unwrap_or_default();
            let declared = declared.contains(&definition(&group, &version, kind));
            resource_line(&mut out, (&group, &version), item, items, strategy, fields, declared)?;
        }
    }
    Ok(out)
}

/// Types whose names are judged by a rule declared with them.
fn declared_names(reference: &Path) -> Result<BTreeSet<String>> {
    let rows = read_tsv(&reference.join("fields.tsv"))?;
    let ruled =
        rows.iter().filter(|r| col(r, "json") == "metadata" && r.values().any(|v| v.contains("subfield(name)=>format=k8s-long-name")));
    Ok(ruled.map(|r| col(r, "definition").to_owned()).collect())
}

/// All that discovery says of the versions served: group, version, resource or subresource, kind, scope, verbs, short names,
/// categories, singular. The table of kinds is tested against it.
fn surface(reference: &Path) -> Result<String> {
    let served = group_versions(reference)?;
    let strategies = read_tsv(&reference.join("resource-strategy.tsv"))?;
    let mut lines: Vec<String> = Vec::new();
    for (group, version) in &served {
        let file = if group.is_empty() { format!("api__{version}.json") } else { format!("apis__{group}__{version}.json") };
        let list = read_json(&reference.join("discovery").join(file))?;
        for item in list["resources"].as_array().context("no resources")? {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            let main = text("name").split('/').next().unwrap_or_default().to_owned();
            let key = if group.is_empty() { "core" } else { group };
            let by_default = |r: &&Row| col(r, "group") == key && col(r, "resource") == main;
            if !strategies.iter().find(by_default).is_some_and(|r| col(r, "served_default").split(',').any(|v| v == version)) {
                continue;
            }
            let kind = match (text("group").as_str(), text("version").as_str()) {
                ("", "") => text("kind"),
                (g, v) => format!("{}/{}", gv_text(g, v), text("kind")),
            };
            let scope = if item["namespaced"] == true { "namespaced" } else { "cluster" };
            let cells = [
                gv_text(group, version),
                text("name"),
                kind,
                scope.to_owned(),
                words(&item["verbs"]),
                words(&item["shortNames"]),
                words(&item["categories"]),
                text("singularName"),
            ];
            lines.push(cells.join("\t"));
        }
    }
    lines.sort();
    Ok(format!("# Made by `cargo run -p xtask -- facts` from discovery.\n{}\n", lines.join("\n")))
}

fn resource_line(
    out: &mut String,
    gv: (&str, &str),
    item: &Value,
    items: &[Value],
    strategy: &Row,
    fields: Option<&Row>,
    declared: bool,
) -> Result<()> {
    let (group, version) = gv;
    let name = item["name"].as_str().unwrap_or_default();
    let kind = item["kind"].as_str().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let storage = col(strategy, "storage_version").split(' ').next().unwrap_or_default();
    // Custom resource definitions are stored as v1 here: their v1beta1 was never more than a storage form.
    let storage = if storage == "apiextensions.k8s.io/v1beta1" { "apiextensions.k8s.io/v1" } else { storage };
    let mut flags = String::new();
    for (column, letter) in [
        ("allow_create_on_update", 'c'),
        ("allow_unconditional_update", 'u'),
        ("graceful_delete", 'g'),
        ("return_deleted_object", 'd'),
        ("ttl", 't'),
    ] {
        if col(strategy, column) == "1" {
            flags.push(letter);
        }
    }
    let reset = col(strategy, "reset_fields_ssa");
    let reset = reset
        .split(';')
        .find_map(|part| part.strip_prefix(&format!("{}=", gv_text(group, version))))
        .unwrap_or(if reset.starts_with('.') { ".status" } else { "" });
    let reset: Vec<&str> = reset.split(' ').map(|p| p.trim_start_matches('.')).filter(|p| !p.is_empty()).collect();
    let cells = [
        group.to_owned(),
        version.to_owned(),
        name.to_owned(),
        text(&item["singularName"]),
        kind.to_owned(),
        if item["namespaced"] == true { "n" } else { "" }.to_owned(),
        words(&item["shortNames"]),
        words(&item["categories"]),
        words(&item["verbs"]),
        subresources(name, gv, items),
        col(strategy, "etcd_prefix").split(' ').next().unwrap_or_default().to_owned(),
        storage.to_owned(),
        abbreviate(&definition(group, version, kind)),
        if declared { "declared" } else { name_rule(col(strategy, "name_rule")) }.to_owned(),
        flags,
        col(strategy, "default_gc_policy").to_owned(),
        generation(strategy).to_owned(),
        fields.map(|f| selectors(f, name)).unwrap_or_default(),
        fields.map(|f| col(f, "rejection_message").to_owned()).unwrap_or_default(),
        reset.join(","),
        text(&item["storageVersionHash"]),
    ];
    writeln!(out, "{}", cells.join("\t"))?;
    Ok(())
}

fn gv_text(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The swagger definition of a kind.
fn definition(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
        "internal.apiserver.k8s.io" => format!("io.k8s.api.apiserverinternal.{version}.{kind}"),
        _ => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

fn subresources(name: &str, gv: (&str, &str), items: &[Value]) -> String {
    let mut out: Vec<String> = Vec::new();
    for item in items {
        let Some(sub) = item["name"].as_str().and_then(|n| n.strip_prefix(name)).and_then(|n| n.strip_prefix('/')) else { continue };
        let group = item["group"].as_str().unwrap_or(gv.0);
        let version = item["version"].as_str().unwrap_or(gv.1);
        out.push(format!("{sub}={group}/{version}/{}:{}", item["kind"].as_str().unwrap_or_default(), words(&item["verbs"])));
    }
    out.sort();
    out.join(" ")
}

fn name_rule(text: &str) -> &'static str {
    match text {
        t if t.starts_with("dns1123-subdomain") => "subdomain",
        t if t.starts_with("dns1123-label") => "label",
        t if t.starts_with("dns1035-label") => "label1035",
        t if t.starts_with("path-segment") => "segment",
        "" => "",
        _ => "strategy",
    }
}

fn generation(strategy: &Row) -> &'static str {
    match (col(strategy, "generation_on_create"), col(strategy, "generation_bump")) {
        ("1", "") => "once",
        ("1", "spec,annotations") => "spec+annotations",
        ("1", bump) if bump.contains("labels") => "spec+labels",
        ("1", _) => "spec",
        (_, "spec") => "updates",
        (_, "") => "",
        _ => "strategy",
    }
}

/// `label=path:default`, the last two only where they differ from the label and the empty string.
fn selectors(row: &Row, resource: &str) -> String {
    let labels = col(row, "accepted_field_selectors").split(',').filter(|l| !l.is_empty());
    let cells = labels.map(|label| match (resource, label) {
        ("pods", "spec.host") => "spec.host=spec.nodeName".to_owned(),
        ("pods", "spec.hostNetwork") => "spec.hostNetwork=spec.hostNetwork:false".to_owned(),
        ("pods", "status.podIPs") => "status.podIPs=".to_owned(),
        ("nodes", "spec.unschedulable") => "spec.unschedulable=spec.unschedulable:false".to_owned(),
        ("replicasets" | "replicationcontrollers", "status.replicas") => "status.replicas=status.replicas:0".to_owned(),
        ("jobs", "status.successful") => "status.successful=status.succeeded:0".to_owned(),
        ("events", "source") => "source=source.component".to_owned(),
        (_, label) => label.to_owned(),
    });
    cells.collect::<Vec<_>>().join(",")
}

fn columns(reference: &Path) -> Result<String> {
    let doc = read_json(&reference.join("printer-columns.json"))?;
    let mut out =
        String::from("# Made by `cargo run -p xtask -- facts`: group/resource, then name, type, format, priority of each column.\n");
    for (key, resource) in doc["resources"].as_object().context("no resources")? {
        if resource["served_default"] != true {
            continue;
        }
        for column in resource["columns"].as_array().into_iter().flatten() {
            let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
            writeln!(out, "{key}\t{}\t{}\t{}\t{}", text("name"), text("type"), text("format"), column["priority"])?;
        }
    }
    Ok(out)
}

/// Paths whose observed default is computed from other fields: strategies set those.
const COMPUTED: [(&str, &str); 22] = [
    ("StatefulSet", "spec.updateStrategy.type"),
    ("Pod", "imagePullPolicy"),
    ("ReplicationController", "imagePullPolicy"),
    ("Pod", "image.pullPolicy"),
    ("Pod", "spec.volumes[].emptyDir"),
    ("ConfigMap", "data"),
    ("DaemonSet", "spec.updateStrategy.rollingUpdate"),
    ("Deployment", "spec.strategy.rollingUpdate"),
    ("StatefulSet", "spec.updateStrategy.rollingUpdate"),
    ("StatefulSet", "spec.updateStrategy.rollingUpdate.partition"),
    ("Job", "spec.completions"),
    ("Job", "spec.parallelism"),
    ("Job", "spec.backoffLimit"),
    ("NetworkPolicy", "spec.policyTypes"),
    ("Service", "spec.internalTrafficPolicy"),
    ("Service", "spec.sessionAffinityConfig"),
    ("ResourceClaim", "count"),
    ("ResourceClaimTemplate", "count"),
    ("ResourceSlice", "timeAdded"),
    ("HorizontalPodAutoscaler", "selectPolicy"),
    ("HorizontalPodAutoscaler", "stabilizationWindowSeconds"),
    ("DeviceTaintRule", "timeAdded"),
];

/// Defaults that are plain values; computed ones are code (strategies).
fn defaults(reference: &Path) -> Result<String> {
    let mut out = String::from("# Made by `cargo run -p xtask -- facts`: apiVersion, kind, path, value.\n");
    for row in read_tsv(&reference.join("defaults.tsv"))? {
        // A decoded object has all its parents that are not pointers, so whether a rule is for "always", "if parent object
        // given" or "if object absent" makes no difference: a missing field of a present parent gets the value.
        if !matches!(col(&row, "when"), "always" | "if parent object given" | "if object absent") {
            continue;
        }
        let (kind, path) = (col(&row, "kind"), col(&row, "path"));
        if COMPUTED.iter().any(|(k, p)| *k == kind && path.ends_with(p)) {
            continue;
        }
        if !col(&row, "rule").is_empty() || serde_json::from_str::<Value>(col(&row, "value")).is_err() {
            continue;
        }
        writeln!(out, "{}\t{kind}\t{path}\t{}", col(&row, "groupVersion"), col(&row, "value"))?;
    }
    Ok(out)
}
