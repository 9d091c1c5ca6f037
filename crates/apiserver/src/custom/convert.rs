//! Custom resources between the store and a version that is served: what is stored may be of any version and of an older
//! schema. Strategy None rewrites `apiVersion`; strategy Webhook asks somebody, once for all objects of a kind.

use std::sync::Arc;
use std::time::Duration;

use kinds::Resource;
use kinds::custom::{Conversion, Custom, Definition, go_type};
use machinery::field::{ErrorList, Path, go_quote};
use machinery::metadata;
use machinery::object::str_at;
use machinery::status::StatusError;
use serde_json::{Value, json};
use store::Revision;

use crate::cache::{self, Serve};
use crate::codec;
use crate::identifiers;
use crate::registry;
use crate::state::{Api, cache_error, store_error};
use crate::webhook::{self, Endpoint, Manner};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Stored objects as the row's version shows them, in the same order.
pub async fn served(api: &Arc<Api>, row: &Resource, custom: &Custom, mut objects: Vec<Value>) -> Result<Vec<Value>, StatusError> {
    let definition = &custom.definition;
    objects.iter_mut().for_each(|object| definition.restore(object));
    to_version(api, definition, &row.version, objects).await
}

/// Why the watch cache of a row cannot answer: mostly because something stored cannot be converted, which is then said.
pub async fn problem(api: &Arc<Api>, row: &Resource, error: cache::Error) -> StatusError {
    if let (Some(custom), cache::Error::Unavailable(_) | cache::Error::TooLarge { .. }) = (&row.custom, &error) {
        let listing = match api.store.list(&registry::prefix(row, ""), store::ListOptions::default()).await {
            Ok(listing) => listing,
            Err(error) => return store_error(error),
        };
        let objects = listing.items.iter().map(|item| codec::decode(&item.value, item.mod_revision)).collect();
        if let Err(why) = served(api, row, custom, objects).await {
            return why;
        }
    }
    cache_error(error)
}

/// Fills the watch cache of a row's version with what that version shows.
pub fn for_cache(api: &Arc<Api>, row: &Resource) -> Serve {
    let api = Arc::downgrade(api);
    let Some(custom) = row.custom.clone() else { return Arc::new(|items| Box::pin(async move { Ok(items) })) };
    let version = row.version.clone();
    Arc::new(move |mut items| {
        let (api, custom, version) = (api.clone(), custom.clone(), version.clone());
        Box::pin(async move {
            let Some(api) = api.upgrade() else { return Err("the server has ended".to_owned()) };
            let definition = &custom.definition;
            let mut objects: Vec<Value> = items.iter().map(|item| codec::decode(&item.value, Revision(0))).collect();
            objects.iter_mut().for_each(|object| definition.restore(object));
            let shown = to_version(&api, definition, &version, objects).await.map_err(|e| e.message)?;
            for (item, object) in items.iter_mut().zip(&shown) {
                item.value = codec::encode(object);
            }
            Ok(items)
        })
    })
}

/// An object of the row's version as it is stored.
pub async fn stored(api: &Arc<Api>, row: &Resource, custom: &Custom, object: Value) -> Result<Value, StatusError> {
    let mut converted = to_version(api, &custom.definition, &row.storage_version.version, vec![object]).await?;
    converted.pop().ok_or_else(|| StatusError::internal("conversion lost an object"))
}

async fn to_version(
    api: &Arc<Api>,
    definition: &Arc<Definition>,
    version: &str,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, StatusError> {
    let wanted = definition.api_version(version);
    let differing: Vec<usize> = (0..objects.len()).filter(|at| str_at(&objects[*at], "apiVersion") != wanted).collect();
    if differing.is_empty() {
        return Ok(objects);
    }
    match &definition.conversion {
        Conversion::None => {
            for at in differing {
                objects[at]["apiVersion"] = json!(wanted);
                definition.settle(&mut objects[at]);
            }
        }
        Conversion::Webhook { client, review_versions } => {
            let originals: Vec<Value> = differing.iter().map(|at| objects[*at].clone()).collect();
            let failed = |text: String| StatusError { message: text, ..StatusError::internal("") };
            let converted = ask(api, client, review_versions, &wanted, &originals).await.map_err(failed)?;
            for (at, mut value) in differing.into_iter().zip(converted) {
                definition.settle(&mut value);
                objects[at] = value;
            }
        }
    }
    Ok(objects)
}

/// One ConversionReview for all objects. Errors are upstream's `webhookConverter`'s, whole.
async fn ask(api: &Arc<Api>, client: &Value, review_versions: &[String], wanted: &str, originals: &[Value]) -> Result<Vec<Value>, String> {
    let version = review_versions
        .iter()
        .find(|v| matches!(v.as_str(), "v1" | "v1beta1"))
        .ok_or_else(|| "no supported conversion review versions".to_owned())?;
    let endpoint = Endpoint::from_client_config(client)?;
    let uid = identifiers::uuid();
    let review = json!({
        "apiVersion": format!("apiextensions.k8s.io/{version}"), "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": originals},
    });
    let who = originals.first().map(webhook_for).unwrap_or_default();
    let answer = webhook::post(api, &endpoint, &review, Manner { timeout: TIMEOUT, tell_timeout: true })
        .await
        .map_err(|e| format!("{who} failed: {e}"))?;
    judge(&answer, version, &uid, wanted, originals)
}

/// How errors name the webhook of an object.
fn webhook_for(original: &Value) -> String {
    format!("conversion webhook for {}, Kind={}", str_at(original, "apiVersion"), str_at(original, "kind"))
}

/// What came back, if it is what was asked for. Several objects are judged as a list's items, one as itself.
fn judge(answer: &Value, version: &str, uid: &str, wanted: &str, originals: &[Value]) -> Result<Vec<Value>, String> {
    let who = originals.first().map(webhook_for).unwrap_or_default();
    let converted = objects_of(answer, version, uid).map_err(|why| format!("{who} failed: {why}"))?;
    if converted.len() != originals.len() {
        return Err(format!("{who} returned {} objects, expected {}", converted.len(), originals.len()));
    }
    let listed = originals.len() > 1;
    let mut out = Vec::with_capacity(converted.len());
    for (at, (value, original)) in converted.iter().zip(originals).enumerate() {
        let who = webhook_for(original);
        let of_list = format!("{who} returned invalid converted object at index {at}: ");
        is_object(value).map_err(|why| if listed { format!("{of_list}{why}") } else { why })?;
        let versioned = if listed { of_list.clone() } else { format!("{who} returned invalid object at index 0: ") };
        check_type(value, original, wanted).map_err(|why| format!("{versioned}{why}"))?;
        let same = if listed { of_list } else { format!("{who} returned invalid object: ") };
        check_identity(value, original).map_err(|why| format!("{same}{why}"))?;
        let at = if listed { format!(" in object at index {at}") } else { String::new() };
        out.push(restore_metadata(value, original).map_err(|why| format!("{who} returned invalid metadata{at}: {why}"))?);
    }
    Ok(out)
}

fn objects_of<'a>(answer: &'a Value, version: &str, uid: &str) -> Result<&'a [Value], String> {
    let strict = version == "v1";
    if strict {
        let gvk = |object: &Value| {
            let (version, kind) = (str_at(object, "apiVersion"), str_at(object, "kind"));
            format!("{}{version}, Kind={kind}", if version.contains('/') { "" } else { "/" })
        };
        let (expected, got) = ("apiextensions.k8s.io/v1, Kind=ConversionReview", gvk(answer));
        if got != expected {
            return Err(format!("expected webhook response of {expected}, got {got}"));
        }
    }
    let response = answer.get("response").filter(|r| r.is_object()).ok_or("no response provided")?;
    let given = str_at(response, "uid");
    if strict && given != uid {
        return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(given)));
    }
    let result = response.get("result").unwrap_or(&Value::Null);
    match (str_at(result, "status"), str_at(result, "message")) {
        ("Success", _) => Ok(response.get("convertedObjects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

fn is_object(converted: &Value) -> Result<(), String> {
    if !converted.is_object() {
        let what = go_type(converted).replace("[]interface {}", "array").replace("float64", "number").replace("int64", "number");
        return Err(format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"));
    }
    if str_at(converted, "kind").is_empty() {
        return Err(format!("Object 'Kind' is missing in '{converted}'"));
    }
    Ok(())
}

fn check_type(converted: &Value, original: &Value, wanted: &str) -> Result<(), String> {
    let (version, kind, expected) = (str_at(converted, "apiVersion"), str_at(converted, "kind"), str_at(original, "kind"));
    if version != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {version})"));
    }
    if kind != expected {
        return Err(format!("invalid kind (expected {expected}, received {kind})"));
    }
    Ok(())
}

fn check_identity(converted: &Value, original: &Value) -> Result<(), String> {
    for (path, what) in [("metadata.name", "name"), ("metadata.namespace", "namespace"), ("metadata.uid", "UID")] {
        let (before, after) = (str_at(original, path), str_at(converted, path));
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    Ok(())
}

/// The converted object with the original's metadata: of those, a webhook changes labels and annotations alone.
fn restore_metadata(converted: &Value, original: &Value) -> Result<Value, String> {
    let given = match converted.get("metadata") {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", go_type(other))),
    };
    let mut metadata = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for key in ["labels", "annotations"] {
        let entries = match given.get(key) {
            None | Some(Value::Null) => {
                metadata.remove(key);
                continue;
            }
            Some(Value::Object(entries)) => entries,
            Some(other) => return Err(format!("invalid metadata.{key} of type {} in converted object", go_type(other))),
        };
        if let Some((name, value)) = entries.iter().find(|(_, v)| !v.is_string()) {
            return Err(format!("metadata.{key}[{name}] must be a string, but is {} in converted object", go_type(value)));
        }
        let given = Value::Object(entries.clone());
        if metadata.get(key) != Some(&given) {
            check_entries(key, &given)?;
        }
        metadata.insert(key.to_owned(), given);
    }
    let mut out = converted.clone();
    out["metadata"] = Value::Object(metadata);
    Ok(out)
}

fn check_entries(key: &str, given: &Value) -> Result<(), String> {
    let (mut errors, parent) = (ErrorList::new(), Path::new("metadata"));
    match key {
        "labels" => metadata::labels(Some(given), &parent.child("labels"), &mut errors),
        // The path is upstream's.
        _ => metadata::annotations(Some(given), &parent.child("annotation"), &mut errors),
    }
    if errors.is_empty() { Ok(()) } else { Err(machinery::field::aggregate(&errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({"apiVersion": "g/v1", "kind": "T", "metadata": {"name": "n", "uid": "u", "labels": {"a": "1"}, "finalizers": ["f/x"]}, "spec": 1})
    }

    fn review(objects: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "x", "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    fn good() -> Value {
        json!({"apiVersion": "g/v2", "kind": "T", "metadata": {"name": "n", "uid": "u", "labels": {"b": "2"}, "generation": 7}, "spec": 2})
    }

    #[test]
    fn what_a_webhook_may_not_change_is_kept_or_refused() {
        let asked = |answer: &Value| judge(answer, "v1", "x", "g/v2", &[original()]);
        let got = asked(&review(json!([good()]))).unwrap();
        assert_eq!(got[0]["metadata"], json!({"name": "n", "uid": "u", "labels": {"b": "2"}, "finalizers": ["f/x"]}));
        assert_eq!(got[0]["spec"], 2);
        let two = |answer: &Value| judge(answer, "v1", "x", "g/v2", &[original(), original()]);
        for (path, value, of_one, of_many) in [
            (
                "/metadata/uid",
                json!("z"),
                "invalid object: must have the same UID: u != z",
                "invalid converted object at index 1: must have the same UID: u != z",
            ),
            (
                "/metadata/name",
                json!("z"),
                "invalid object: must have the same name: n != z",
                "invalid converted object at index 1: must have the same name: n != z",
            ),
            (
                "/apiVersion",
                json!("g/v1"),
                "invalid object at index 0: invalid groupVersion (expected g/v2, received g/v1)",
                "invalid converted object at index 1: invalid groupVersion (expected g/v2, received g/v1)",
            ),
            (
                "/kind",
                json!("Z"),
                "invalid object at index 0: invalid kind (expected T, received Z)",
                "invalid converted object at index 1: invalid kind (expected T, received Z)",
            ),
            (
                "/metadata/labels",
                json!("a"),
                "invalid metadata: invalid metadata.labels of type string in converted object",
                "invalid metadata in object at index 1: invalid metadata.labels of type string in converted object",
            ),
            (
                "/metadata/labels/b",
                json!(1),
                "invalid metadata: metadata.labels[b] must be a string, but is int64 in converted object",
                "invalid metadata in object at index 1: metadata.labels[b] must be a string, but is int64 in converted object",
            ),
            (
                "/metadata/labels/b",
                json!("-"),
                "invalid metadata: metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                "",
            ),
        ] {
            let mut bad = good();
            *bad.pointer_mut(path).unwrap() = value;
            assert_eq!(asked(&review(json!([bad]))).unwrap_err(), format!("conversion webhook for g/v1, Kind=T returned {of_one}"));
            if !of_many.is_empty() {
                let many = two(&review(json!([good(), bad]))).unwrap_err();
                assert_eq!(many, format!("conversion webhook for g/v1, Kind=T returned {of_many}"));
            }
        }
        let mut none = good();
        none.as_object_mut().unwrap().remove("metadata");
        assert_eq!(
            asked(&review(json!([none]))).unwrap_err(),
            "conversion webhook for g/v1, Kind=T returned invalid object: must have the same name: n != "
        );
    }

    #[test]
    fn answers_that_are_none_are_told_in_upstreams_words() {
        let asked = |answer: &Value, version: &str| judge(answer, version, "x", "g/v2", &[original()]).unwrap_err();
        let mut other = review(json!([good()]));
        other["response"]["uid"] = json!("y");
        let mut failed = review(json!([]));
        failed["response"]["result"] = json!({"status": "Failure", "message": "no"});
        let mut mute = failed.clone();
        mute["response"]["result"] = json!({"status": "Failure"});
        let mut strange = review(json!([good()]));
        strange["kind"] = json!("Other");
        let mut silent = review(json!([]));
        silent["response"] = Value::Null;
        for (answer, version, wanted) in [
            (&other, "v1", " failed: expected response.uid=\"x\", got \"y\""),
            (&failed, "v1", " failed: no"),
            (&failed, "v1beta1", " failed: no"),
            (&mute, "v1", " failed: response.result.status was 'Failure', not 'Success'"),
            (
                &strange,
                "v1",
                " failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=Other",
            ),
            (&json!({}), "v1", " failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind="),
            (&silent, "v1", " failed: no response provided"),
            (&review(json!([])), "v1", " returned 0 objects, expected 1"),
        ] {
            assert_eq!(asked(answer, version), format!("conversion webhook for g/v1, Kind=T{wanted}"));
        }
        // The older review says neither what it is nor what it answers.
        let (mut bare, objects) = (other, [original()]);
        bare["kind"] = json!("");
        assert!(judge(&bare, "v1beta1", "x", "g/v2", &objects).is_ok());
        assert_eq!(asked(&review(json!([1])), "v1"), "json: cannot unmarshal number into Go value of type map[string]interface {}");
    }
}
