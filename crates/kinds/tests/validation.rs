//! Replays recorded creates and updates of upstream through decoding, defaults and validation, without a server, and compares the causes of
//! each answer. The recordings are not part of the project; without them the test says so and passes.
//!
//! `PARITY_SHOW=pods cargo test -p kinds --test validation -- --nocapture` prints the differences of one resource.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a test harness that reads files")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kinds::{Context, Resource};
use machinery::gvk::GroupVersionResource;
use serde_json::{Value, json};

/// Answers that must at least be the same, per group: raise these as rules are added.
const FLOOR: [(&str, usize); 9] = [
    ("crd", 50),
    ("validation", 6543),
    ("rules", 265),
    ("full", 465),
    ("crud", 1650),
    ("names", 2377),
    ("updates", 1979),
    ("status", 1460),
    ("admission", 179),
];

fn golden() -> Option<PathBuf> {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    loop {
        for at in ["../shared/parity/golden", "shared/parity/golden"] {
            let found = dir.join(at);
            if found.is_dir() {
                return Some(found);
            }
        }
        if !dir.pop() {
            return None;
        }
    }
}

fn cases(group: &str, dir: &Path) -> Vec<Value> {
    let Ok(file) = std::fs::File::open(dir.join(format!("{group}.jsonl.gz"))) else { return Vec::new() };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let text = without_uids(&text);
    text.replace("<gen>", "abcde")
        .replace("<ip4>", "10.96.0.10")
        .replace("<time>", "2026-01-02T03:04:05Z")
        .replace("${NS}", "ns")
        .replace("${R}", "r")
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// The recordings name uids by where they were seen first; here there is one.
fn without_uids(text: &str) -> String {
    let mut parts = text.split("<uid:");
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        out.push_str("uid");
        out.push_str(part.split_once('>').map_or("", |(_, rest)| rest));
    }
    out
}

/// The row, namespace, name and subresource of a request path.
fn route(path: &str) -> Option<(&'static Resource, String, String, String)> {
    let path = path.split('?').next()?;
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let group = match *parts.first()? {
        "api" => "",
        "apis" => parts.remove(1),
        _ => return None,
    };
    let version = *parts.get(1)?;
    let mut rest = parts[2..].to_vec();
    let mut namespace = String::new();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
        namespace = rest[1].to_owned();
        rest.drain(..2);
    }
    let row = kinds::table::table().by_resource(&GroupVersionResource::new(group, version, *rest.first()?))?;
    let at = |i: usize| rest.get(i).copied().unwrap_or("").to_owned();
    Some((row, namespace, at(1), at(2)))
}

fn context(row: &Resource) -> Context {
    Context { version: row.version.clone(), now: "2026-01-02T03:04:05Z".to_owned(), user: "admin".to_owned(), ..Context::default() }
}

type Causes = Vec<(String, String)>;

fn errors(list: Vec<machinery::field::Error>) -> Causes {
    list.into_iter().map(|e| (e.field.clone(), e.body())).collect()
}

fn decoded(row: &Resource, body: &Value) -> Option<Value> {
    let mut object = body.clone();
    row.decode(&mut object).ok()?;
    row.defaults.apply(&mut object);
    row.strategy.default(&context(row), &mut object);
    Some(object)
}

fn created(row: &Resource, namespace: &str, body: &Value) -> Option<Causes> {
    let ctx = context(row);
    let mut object = decoded(row, body)?;
    let meta = machinery::object::metadata_mut(&mut object);
    if !namespace.is_empty() {
        meta.insert("namespace".into(), json!(namespace));
    }
    let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or("").to_owned();
    if meta.get("name").and_then(Value::as_str).unwrap_or("").is_empty() && !prefix.is_empty() {
        let base: String = prefix.chars().take(58).collect();
        meta.insert("name".into(), json!(format!("{base}abcde")));
    }
    meta.insert("uid".into(), json!("uid"));
    // Before it validates, the server numbers new objects and forgets who it cannot have been that wrote them.
    meta.remove("managedFields");
    if !matches!(row.generation, kinds::resource::Generation::Untouched) {
        meta.insert("generation".into(), json!(1));
    }
    row.strategy.prepare_for_create(&ctx, &mut object);
    admit(row, &mut object);
    Some(errors(kinds::validate::create(row, &ctx, &object)))
}

/// What admission of the recorded server would have added and validation looks at.
fn admit(row: &Resource, object: &mut Value) {
    if row.resource == "pods" && object["spec"].is_object() {
        kinds::validate::tree::set_default(&mut object["spec"], "serviceAccountName", "default");
    }
}

fn updated(row: &Resource, sub: &str, old: &Value, body: &Value) -> Option<Causes> {
    let ctx = context(row);
    let mut new = decoded(row, body)?;
    let meta = machinery::object::metadata_mut(&mut new);
    for key in ["uid", "creationTimestamp", "resourceVersion", "generation", "namespace", "name", "deletionTimestamp"] {
        if let Some(v) = old["metadata"].get(key)
            && meta.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some(""))
        {
            meta.insert(key.into(), v.clone());
        }
    }
    if sub.is_empty() {
        row.strategy.prepare_for_update(&ctx, &mut new, old);
        return Some(errors(kinds::validate::update(row, &ctx, &new, old)));
    }
    let strategy = row.strategy.subresource(sub)?;
    strategy.prepare_for_update(&ctx, &mut new, old);
    Some(errors(kinds::validate::update_with(row, strategy, &ctx, &new, old)))
}

fn wanted(resp: &Value) -> Option<Causes> {
    match resp["status"].as_u64()? {
        200 | 201 => Some(Causes::new()),
        422 => {
            let causes = resp["body"]["details"]["causes"].as_array()?;
            let text = |c: &Value, k: &str| c[k].as_str().unwrap_or("").to_owned();
            let list: Causes = causes.iter().map(|c| (text(c, "field"), text(c, "message"))).collect();
            // Errors of requests and patches are not validation's.
            let foreign = ["dryRun", "patch", "fieldValidation", "propagationPolicy", "[metadata]", "<nil>"];
            (!list.iter().any(|(f, _)| foreign.contains(&f.as_str()))).then_some(list)
        }
        _ => None,
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().unwrap();
    for (k, v) in patch {
        if v.is_null() {
            map.remove(k);
        } else {
            merge(map.entry(k.clone()).or_insert(Value::Null), v);
        }
    }
}

/// The answer of one step, where it can be computed from what was seen before.
fn replay(step: &Value, seen: &BTreeMap<String, Value>) -> Option<(&'static Resource, Causes)> {
    let path = step["path"].as_str()?;
    let (row, namespace, name, sub) = route(path)?;
    let body = step.get("json")?;
    match step["method"].as_str()? {
        "POST" if name.is_empty() => {
            if body["kind"] != json!(row.kind) {
                return None;
            }
            Some((row, created(row, &namespace, body)?))
        }
        "PATCH" => {
            let headers = step["headers"].to_string();
            let old = seen.get(path.split('?').next()?.trim_end_matches(&format!("/{sub}")))?;
            if !headers.contains("merge-patch+json") || headers.contains("strategic") {
                return None;
            }
            let mut new = old.clone();
            merge(&mut new, body);
            Some((row, updated(row, &sub, old, &new)?))
        }
        "PUT" => {
            let old = seen.get(path.split('?').next()?.trim_end_matches(&format!("/{sub}")))?;
            Some((row, updated(row, &sub, old, body)?))
        }
        _ => None,
    }
}

#[test]
fn recorded_answers() {
    let Some(dir) = golden() else {
        println!("no recordings of upstream here: nothing compared");
        return;
    };
    let show = std::env::var("PARITY_SHOW").unwrap_or_default();
    let mut by_resource: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (group, floor) in FLOOR {
        let (mut same, mut all) = (0, 0);
        for case in cases(group, &dir) {
            let mut seen: BTreeMap<String, Value> = BTreeMap::new();
            for step in case["steps"].as_array().into_iter().flatten() {
                let resp = &step["resp"];
                if let (Some(want), Some((row, got))) = (wanted(resp), replay(step, &seen)) {
                    all += 1;
                    let count = by_resource.entry(format!("{group} {}", row.resource)).or_default();
                    count.1 += 1;
                    if alike(&want, &got) {
                        same += 1;
                        count.0 += 1;
                    } else if show == row.resource {
                        println!("--- {} {} {}\n{}", case["case"], step["method"], step["path"], step["json"]);
                        want.iter().filter(|w| !got.contains(w)).for_each(|w| println!("  - {}: {}", w.0, w.1));
                        got.iter().filter(|g| !want.contains(g)).for_each(|g| println!("  + {}: {}", g.0, g.1));
                        if want.len() != got.len() || want.iter().all(|w| got.contains(w)) {
                            println!("  order: {:?}\n     got: {:?}", fields(&want), fields(&got));
                        }
                    }
                }
                remember(step, &mut seen);
            }
        }
        println!("{group}: {same} of {all}");
        if same < floor {
            failures.push(format!("{group}: {same} is less than {floor}"));
        }
    }
    for (name, (same, all)) in by_resource.iter().filter(|(_, (same, all))| same < all) {
        println!("  {name}: {same} of {all}");
    }
    assert!(failures.is_empty(), "{failures:?}");
}

fn fields(causes: &Causes) -> Vec<&str> {
    causes.iter().map(|c| c.0.as_str()).collect()
}

/// The same causes; uids are not known here.
fn alike(want: &Causes, got: &Causes) -> bool {
    want.len() == got.len() && want.iter().zip(got).all(|(w, g)| w == g)
}

/// What the server answered becomes what the next steps change.
fn remember(step: &Value, seen: &mut BTreeMap<String, Value>) {
    let body = &step["resp"]["body"];
    let path = step["path"].as_str().unwrap_or("");
    if path.contains("dryRun") || !body["metadata"]["name"].is_string() || body["kind"] == json!("Status") {
        return;
    }
    let Some((row, _, name, sub)) = route(path) else { return };
    if body["kind"] != json!(row.kind) {
        return;
    }
    let plain = path.split('?').next().unwrap_or("");
    let key = if name.is_empty() {
        format!("{plain}/{}", body["metadata"]["name"].as_str().unwrap_or(""))
    } else if sub.is_empty() {
        plain.to_owned()
    } else {
        plain.trim_end_matches(&format!("/{sub}")).to_owned()
    };
    seen.insert(key, body.clone());
}
