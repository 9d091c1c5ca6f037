//! Creates, updates, patches and applies: the managed fields of the answer, and for patches the object too, from the answer
//! before and the request.

use std::collections::HashMap;

use kinds::{Context, Resource, types};
use machinery::apply::{self, Writer};
use machinery::decode::decode;
use machinery::patch::{JsonPatch, merge, strategic};
use serde_json::Value;

use crate::decode::difference;
use crate::recordings::{Score, cases, fill_times, row_of};

const NOW: &str = "2026-01-01T00:00:00Z";

/// Marks a writer whose object went through Go's map converter.
const STRATEGIC: &str = "(strategic)";

/// What became of a request.
#[derive(Debug)]
enum Outcome {
    Object(Value),
    Refused(u16, String),
    /// Not something these layers decide.
    Elsewhere,
}

#[derive(Default)]
struct Case {
    /// The last answer at each path, and each step's answer by its id.
    live: HashMap<String, Value>,
    answers: HashMap<String, Value>,
}

fn finish(row: &Resource, old: Option<&Value>, mut object: Value, writer: &Writer<'_>) -> Outcome {
    if let Err(error) = decode(types(), row.ty, &mut object) {
        let from_map = writer.time == STRATEGIC;
        return Outcome::Refused(if old.is_some() { 422 } else { 400 }, if from_map { error.restore } else { error.text });
    }
    let writer = &Writer { time: NOW, ..*writer };
    row.defaults.apply(&mut object);
    let context = Context { version: row.version.clone(), now: NOW.to_owned(), user: "u".to_owned(), ..Context::default() };
    row.strategy.default(&context, &mut object);
    apply::on_update(types(), row.ty, old, &mut object, writer);
    Outcome::Object(object)
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.split_once('?')?.1.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

fn edited(case: &Case, step: &Value) -> Option<Value> {
    let edit = step.get("edit")?;
    let mut object = case.answers.get(edit["of"].as_str()?)?.clone();
    for change in edit["set"].as_array().into_iter().flatten() {
        let path = format!("/{}", change[0].as_str()?);
        let (parent, last) = path.rsplit_once('/')?;
        let Some(Value::Object(map)) = object.pointer_mut(parent) else { return None };
        if change[1] == "<delete>" {
            map.remove(last);
        } else {
            map.insert(last.to_owned(), change[1].clone());
        }
    }
    Some(object)
}

fn run(case: &Case, step: &Value) -> Outcome {
    let path = step["path"].as_str().unwrap_or("");
    let bare = path.split('?').next().unwrap_or("");
    let (bare, subresource) = bare.strip_suffix("/status").map_or((bare, ""), |b| (b, "status"));
    let manager = query(path, "fieldManager").unwrap_or("parity");
    let body = edited(case, step).or_else(|| step.get("json").cloned());
    let Some(row) = body.as_ref().and_then(row_of).or_else(|| case.live.get(bare).and_then(row_of)) else { return Outcome::Elsewhere };
    let api_version = row.gvk().api_version();
    let reset = row.reset_fields_of(subresource);
    let writer = Writer { manager, api_version: &api_version, subresource, time: NOW, reset_fields: &reset };
    let raw = step["raw"].as_str().map_or_else(|| body.clone().unwrap_or_default().to_string(), str::to_owned);
    let old = case.live.get(bare);
    match (step["method"].as_str().unwrap_or(""), step["headers"]["Content-Type"].as_str().unwrap_or("")) {
        ("POST", _) => body.map_or(Outcome::Elsewhere, |b| finish(row, None, b, &writer)),
        ("PUT", _) => match (body, old) {
            (Some(b), Some(_)) => finish(row, old, b, &writer),
            _ => Outcome::Elsewhere,
        },
        ("PATCH", kind) => patch(row, old, &raw, kind, &writer, path),
        _ => Outcome::Elsewhere,
    }
}

fn patch(row: &Resource, old: Option<&Value>, raw: &str, kind: &str, writer: &Writer<'_>, path: &str) -> Outcome {
    if kind == "application/apply-patch+yaml" {
        let Ok(config) = serde_json::from_str(raw) else { return Outcome::Elsewhere };
        let force = query(path, "force") == Some("true");
        return match apply::apply(types(), row.ty, old, &config, writer, force) {
            Ok(applied) => {
                let mut object = applied.object;
                match decode(types(), row.ty, &mut object) {
                    Ok(_) => Outcome::Object(object),
                    Err(error) => Outcome::Refused(500, error.to_string()),
                }
            }
            Err(error) => {
                let name = config["metadata"]["name"].as_str().unwrap_or("");
                let status = error.to_status(&format!("/{name}; {}", row.gvk()));
                Outcome::Refused(status.code, status.message)
            }
        };
    }
    let Some(old) = old else { return Outcome::Elsewhere };
    let patched = match kind {
        "application/merge-patch+json" => merge(old, raw.as_bytes()).map(|(v, _)| v),
        "application/json-patch+json" => JsonPatch::parse(raw.as_bytes()).and_then(|p| p.apply(old)),
        "application/strategic-merge-patch+json" => strategic(types(), row.ty, old, raw.as_bytes()).map(|(v, _)| v),
        _ => return Outcome::Elsewhere,
    };
    match patched {
        Ok(object) => {
            if let Some(shown) = shown(row, raw, kind, &object) {
                SHOWN.with(|s| *s.borrow_mut() = shown);
            }
            let mark = if kind.contains("strategic") { STRATEGIC } else { NOW };
            finish(row, Some(old), object, &Writer { time: mark, ..*writer })
        }
        Err(error) => {
            let status = error.to_status();
            Outcome::Refused(status.code, status.message)
        }
    }
}

thread_local! {
    /// The last patched object as error texts print it.
    static SHOWN: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn shown(row: &Resource, raw: &str, kind: &str, patched: &Value) -> Option<String> {
    let touched = match kind {
        "application/merge-patch+json" => serde_json::from_str(raw).ok()?,
        "application/json-patch+json" => JsonPatch::parse(raw.as_bytes()).ok()?.touched(),
        _ => return None,
    };
    Some(machinery::patch::shown(types(), row.ty, patched, &touched))
}

#[test]
fn refused_objects_are_shown_as_upstream_shows_them() {
    let mut score = Score::default();
    for group in ["crud", "merge", "updates"] {
        each(group, |name, step, status, answer, outcome| {
            let kind = step["headers"]["Content-Type"].as_str().unwrap_or("");
            let message = answer["details"]["causes"][0]["message"].as_str().unwrap_or("");
            if status != 422
                || !kind.ends_with("-patch+json")
                || kind.contains("strategic")
                || answer["details"]["causes"][0]["field"] != "patch"
            {
                return;
            }
            // Placeholders stand for values of other steps; only the order of keys can be compared.
            let keys = |t: &str| -> Vec<String> {
                t.split('"').filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric())).map(str::to_owned).collect()
            };
            let Some(quoted) = message.strip_prefix("Invalid value: ") else { return };
            let Some(want) = serde_json::Deserializer::from_str(quoted).into_iter::<String>().next().and_then(Result::ok) else { return };
            let got = SHOWN.with(|s| s.borrow().clone());
            let same = keys(&want) == keys(&got);
            score.add(same, || format!("{name} {}\n want {want:.1500}\n  got {got:.1500}\n{outcome:.20?}", step["json"]));
        });
    }
    println!("shown objects: {} of {}", score.same, score.same + score.different);
    assert!(score.different * 10 <= score.same);
}

/// Times are set aside; the order of entries too.
fn managed(object: &Value) -> Vec<Value> {
    let mut entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        if let Some(map) = entry.as_object_mut()
            && map.contains_key("time")
        {
            map.insert("time".to_owned(), NOW.into());
        }
    }
    entries.sort_by_key(|e| e.to_string());
    entries
}

/// Runs all cases of a group; `check` gets the step, upstream's answer and ours.
fn each(group: &str, mut check: impl FnMut(&str, &Value, u64, &Value, &Outcome)) {
    for record in cases(group) {
        let mut case = Case::default();
        for (index, step) in record["steps"].as_array().unwrap().iter().enumerate() {
            let path = step["path"].as_str().unwrap_or("");
            let bare = path.split('?').next().unwrap_or("").to_owned();
            let status = step["resp"]["status"].as_u64().unwrap_or(0);
            let mut answer = step["resp"]["body"].clone();
            fill_times(&mut answer);
            let depth = bare.trim_matches('/').split('/').count();
            let subresource = ["scale", "resize", "binding", "token", "eviction", "finalize", "approval", "ephemeralcontainers"]
                .iter()
                .any(|s| bare.ends_with(&format!("/{s}")) && depth > 3);
            if !subresource {
                let outcome = run(&case, step);
                let name = format!("{}#{index} {path}", record["case"].as_str().unwrap_or(""));
                check(&name, step, status, &answer, &outcome);
            }
            let id = step["id"].as_str().map_or_else(|| format!("s{}", index + 1), str::to_owned);
            if (200..300).contains(&status) && row_of(&answer).is_some() {
                case.answers.insert(id, answer.clone());
                if !path.contains("dryRun=All") {
                    let name = answer["metadata"]["name"].as_str().unwrap_or("");
                    let key = if step["method"] == "POST" { format!("{bare}/{name}") } else { bare.clone() };
                    let main = key.strip_suffix("/status").map_or(key.clone(), str::to_owned);
                    case.live.insert(main, answer);
                }
            }
        }
    }
}

fn measure(groups: &[&str], method: &str, content_type: &str, least_percent: usize) {
    let (mut fields, mut texts) = (Score::default(), Score::default());
    for group in groups {
        each(group, |name, step, status, answer, outcome| {
            let of_status = step["path"].as_str().unwrap_or("").split('?').next().unwrap_or("").ends_with("/status");
            if of_status != STATUS.with(std::cell::Cell::get)
                || step["method"] != method
                || !step["headers"]["Content-Type"].as_str().unwrap_or("").contains(content_type)
            {
                return;
            }
            match outcome {
                Outcome::Object(ours) if status < 300 && row_of(answer).is_some() => {
                    let (want, got) = (managed(answer), managed(ours));
                    fields.add(want == got, || {
                        let (want, got) = (Value::Array(want), Value::Array(got));
                        format!("{name}\n{}\n{}", step["json"], difference(&want, &got))
                    });
                }
                Outcome::Refused(code, text) => {
                    let want = answer["message"].as_str().unwrap_or("");
                    // Other layers refuse first, or fill in what is a placeholder here.
                    if want.contains("Options.meta.k8s.io") || text.contains("nodePort") {
                        return;
                    }
                    let same = u64::from(*code) == status && (want == text || want.ends_with(text.as_str()));
                    texts.add(same, || format!("{name}\n {status} {want:.600}\n ours {code} {text}"));
                }
                _ => {}
            }
        });
    }
    println!(
        "{method} {content_type}: managed fields {} of {}, refusals {} of {}",
        fields.same,
        fields.same + fields.different,
        texts.same,
        texts.same + texts.different
    );
    let (same, all) = (fields.same + texts.same, fields.same + fields.different + texts.same + texts.different);
    assert!(same * 100 >= all * least_percent, "{same} of {all}");
}

thread_local! {
    /// Whether writes through `status` are measured, or the others.
    static STATUS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[test]
fn statuses() {
    STATUS.with(|s| s.set(true));
    let groups = ["status", "subresource", "crud", "merge"];
    measure(&groups, "PATCH", "application/merge-patch+json", 96);
    measure(&groups, "PATCH", "application/apply-patch+yaml", 96);
    measure(&groups, "PUT", "", 96);
}

#[test]
fn creates() {
    measure(&["crud", "updates", "merge"], "POST", "", 85);
}

#[test]
fn updates() {
    measure(&["crud", "merge", "apply"], "PUT", "", 96);
}

#[test]
fn merge_patches() {
    measure(&["crud", "merge", "apply", "updates"], "PATCH", "application/merge-patch+json", 97);
}

#[test]
fn json_patches() {
    measure(&["crud", "merge"], "PATCH", "application/json-patch+json", 99);
}

#[test]
fn strategic_patches() {
    measure(&["crud", "merge"], "PATCH", "application/strategic-merge-patch+json", 98);
}

#[test]
fn applies() {
    measure(&["apply", "merge"], "PATCH", "application/apply-patch+yaml", 99);
}
