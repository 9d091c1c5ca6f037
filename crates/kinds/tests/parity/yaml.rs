//! YAML: the fixtures there and back, and the answers to `Accept: application/yaml`.

use std::collections::HashMap;

use machinery::yaml;
use serde_json::Value;

use crate::recordings::{Score, cases, fixtures};

#[test]
fn fixtures_survive_yaml() {
    for (name, bytes) in fixtures().iter().filter(|(n, _)| n.ends_with(".json")) {
        let json: Value = serde_json::from_slice(bytes).unwrap();
        let text = yaml::to_string(&json);
        assert_eq!(yaml::parse(text.as_bytes()).map(|p| p.value), Ok(json), "{name}");
    }
}

#[test]
fn answers_in_yaml() {
    let mut score = Score::default();
    for case in cases("crud") {
        let mut live: HashMap<String, Value> = HashMap::new();
        for step in case["steps"].as_array().unwrap() {
            let path = step["path"].as_str().unwrap_or("").split('?').next().unwrap_or("").to_owned();
            let body = &step["resp"]["body"];
            if let Some(name) = body["metadata"]["name"].as_str().filter(|_| !path.contains("dryRun")) {
                let key = if step["method"] == "POST" { format!("{path}/{name}") } else { path.clone() };
                live.insert(key, body.clone());
            }
            let (Some(text), Some(object)) = (step["resp"]["text"].as_str(), live.get(&path)) else { continue };
            if step["headers"]["Accept"] != "application/yaml" {
                continue;
            }
            // Placeholders lost their quotes, and stand for other versions and names.
            let comparable =
                |text: &str| -> Vec<String> { text.lines().filter(|l| !l.contains('<') && !l.contains("${")).map(str::to_owned).collect() };
            let (want, got) = (comparable(text), comparable(&yaml::to_string(object)));
            let first = want.iter().zip(&got).find(|(a, b)| a != b);
            score.add(want == got, || format!("{}: {first:?}", case["case"]));
        }
    }
    println!("yaml answers: {} of {}", score.same, score.same + score.different);
    assert!(score.different * 10 <= score.same);
}
