//! Decoding: what upstream answers decodes to itself, and bad bodies give upstream's texts.

use kinds::types;
use machinery::decode::{decode, strict_text};
use serde_json::Value;

use crate::recordings::{Score, cases, fill_times, row_of};

#[test]
fn answers_decode_to_themselves() {
    let mut score = Score::default();
    for group in ["crud", "full", "updates", "validation", "status"] {
        for case in cases(group) {
            for step in case["steps"].as_array().unwrap() {
                let mut body = step["resp"]["body"].clone();
                let (Some(row), 200 | 201) = (row_of(&body), step["resp"]["status"].as_i64().unwrap_or(0)) else { continue };
                fill_times(&mut body);
                let mut decoded = body.clone();
                let result = decode(types(), row.ty, &mut decoded);
                let same = result == Ok(Vec::new()) && decoded == body;
                score.add(same, || format!("{}: {result:?}\n{}", case["case"], difference(&body, &decoded)));
            }
        }
    }
    println!("decode: {} of {} answers", score.same, score.same + score.different);
    assert!(score.different * 500 <= score.same, "{} of {} answers do not decode to themselves", score.different, score.same);
}

/// The first place where two trees differ.
pub fn difference(want: &Value, got: &Value) -> String {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) if x == y => {}
                    (Some(x), Some(y)) => return format!(".{key}{}", difference(x, y)),
                    (Some(x), None) => return format!(".{key}: missing {x}"),
                    (None, Some(y)) => return format!(".{key}: too much {y}"),
                    (None, None) => {}
                }
            }
            String::new()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find(|(_, (x, y))| x != y)
            .map(|(i, (x, y))| format!("[{i}]{}", difference(x, y)))
            .unwrap_or_default(),
        _ => format!(": want {want}\n got {got}"),
    }
}

#[test]
fn bad_bodies_give_upstreams_texts() {
    let mut score = Score::default();
    for group in ["crud", "validation", "full"] {
        for case in cases(group) {
            for step in case["steps"].as_array().unwrap() {
                let message = step["resp"]["body"]["message"].as_str().unwrap_or("");
                let bytes = match (&step["json"], step["raw"].as_str()) {
                    (_, Some(raw)) => raw.as_bytes().to_vec(),
                    (Value::Null, None) => continue,
                    (json, None) => json.to_string().into_bytes(),
                };
                let Some((_, want)) = message.split_once(" cannot be handled as a ") else { continue };
                let Some((_, want)) = want.split_once(": ") else { continue };
                if want.contains("no kind") || want.contains("unknown conversion") || want.contains("yaml:") {
                    continue;
                }
                let Ok(parsed) = machinery::json::parse(&bytes) else { continue };
                let mut value = parsed.value;
                let Some(row) = row_of(&value) else { continue };
                let got = match decode(types(), row.ty, &mut value) {
                    Err(error) => error.to_string(),
                    Ok(unknown) => strict_text(&[parsed.strict, unknown].concat()),
                };
                score.add(got == want, || format!("{}\n want {want}\n  got {got}", case["case"]));
            }
        }
    }
    println!("decode errors: {} of {}", score.same, score.same + score.different);
    assert!(score.different * 100 <= score.same, "{} of {} errors differ", score.different, score.same + score.different);
}
