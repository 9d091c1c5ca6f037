//! Custom resources between the store and a version that is served: what is stored may be of any version and of an older
//! schema. Strategy None rewrites `apiVersion`; strategy Webhook asks somebody, once for all objects of a kind.

use std::sync::Arc;
use std::time::Duration;

use kinds::Resource;
use kinds::custom::{Conversion, Custom, Definition};
use machinery::object::{self, str_at};
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
            let failed = |why: String| {
                let from = originals.first().map_or("", |o| str_at(o, "apiVersion"));
                let text = format!("conversion webhook for {from}, Kind={} failed: {why}", definition.kind);
                StatusError { message: text, ..StatusError::internal("") }
            };
            let converted = ask(api, client, review_versions, &wanted, &originals).await.map_err(failed)?;
            for (at, mut value) in differing.into_iter().zip(converted) {
                definition.settle(&mut value);
                objects[at] = value;
            }
        }
    }
    Ok(objects)
}

/// One ConversionReview for all objects.
async fn ask(api: &Arc<Api>, client: &Value, review_versions: &[String], wanted: &str, originals: &[Value]) -> Result<Vec<Value>, String> {
    let version = review_versions
        .iter()
        .find(|v| matches!(v.as_str(), "v1" | "v1beta1"))
        .ok_or_else(|| "could not create ConversionReview objects: no supported conversion review versions".to_owned())?;
    let endpoint = Endpoint::from_client_config(client)?;
    let uid = identifiers::uuid();
    let review = json!({
        "apiVersion": format!("apiextensions.k8s.io/{version}"), "kind": "ConversionReview",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": originals},
    });
    let answer =
        webhook::post(api, &endpoint, &review, Manner { timeout: TIMEOUT, tell_timeout: true }).await.map_err(|e| e.to_string())?;
    judge(&answer, version, &uid, wanted, originals)
}

/// What came back, if it is what was asked for.
fn judge(answer: &Value, version: &str, uid: &str, wanted: &str, originals: &[Value]) -> Result<Vec<Value>, String> {
    let response = answer.get("response").filter(|r| r.is_object()).ok_or("no response provided")?;
    if version == "v1" {
        let api_version = format!("apiextensions.k8s.io/{version}");
        let (given_version, kind) = (str_at(answer, "apiVersion"), str_at(answer, "kind"));
        if (given_version, kind) != (api_version.as_str(), "ConversionReview") {
            return Err(format!(
                "invalid response: expected webhook response of apiextensions.k8s.io/{version}, Kind=ConversionReview, got {given_version}, Kind={kind}"
            ));
        }
        let given = str_at(response, "uid");
        if given != uid {
            return Err(format!("invalid response: expected response.uid={uid:?}, got {given:?}"));
        }
    }
    let result = response.get("result").unwrap_or(&Value::Null);
    if str_at(result, "status") != "Success" {
        let message = match (str_at(result, "message"), str_at(result, "status")) {
            ("", _) => "response.result.status is not Success",
            (message, _) => message,
        };
        return Err(message.to_owned());
    }
    let converted = response.get("convertedObjects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if converted.len() != originals.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), originals.len()));
    }
    let mut out = Vec::with_capacity(converted.len());
    for (at, (value, original)) in converted.iter().zip(originals).enumerate() {
        out.push(check(value, original, wanted).map_err(|why| format!("invalid converted object at index {at}: {why}"))?);
    }
    Ok(out)
}

/// A webhook may change anything but identity; of metadata, labels and annotations.
fn check(converted: &Value, original: &Value, wanted: &str) -> Result<Value, String> {
    if !converted.is_object() {
        return Err("not an object".to_owned());
    }
    let (version, kind) = (str_at(converted, "apiVersion"), str_at(converted, "kind"));
    if version != wanted {
        return Err(format!("invalid groupVersion, expected {wanted}, got {version}"));
    }
    if kind != str_at(original, "kind") {
        return Err(format!("invalid kind, expected {}, got {kind}", str_at(original, "kind")));
    }
    for (path, what) in [("metadata.name", "name"), ("metadata.namespace", "namespace"), ("metadata.uid", "UID")] {
        let (before, after) = (str_at(original, path), str_at(converted, path));
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    let mut out = converted.clone();
    let mut metadata = original.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for key in ["labels", "annotations"] {
        match object::at(converted, "metadata").and_then(|m| m.get(key)).filter(|v| !v.is_null()) {
            Some(value) => drop(metadata.insert(key.to_owned(), value.clone())),
            None => drop(metadata.remove(key)),
        }
    }
    if !object::at(converted, "metadata").is_some_and(Value::is_object) {
        return Err("metadata is missing".to_owned());
    }
    out["metadata"] = Value::Object(metadata);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({"apiVersion": "g/v1", "kind": "T", "metadata": {"name": "n", "uid": "u", "labels": {"a": "1"}, "finalizers": ["f/x"]}, "spec": 1})
    }

    #[test]
    fn what_a_webhook_may_not_change_is_kept_or_refused() {
        let review = |object: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": "x", "result": {"status": "Success"}, "convertedObjects": [object]}})
        };
        let asked = |answer: &Value| judge(answer, "v1", "x", "g/v2", &[original()]);
        let good = json!({"apiVersion": "g/v2", "kind": "T", "metadata": {"name": "n", "uid": "u", "labels": {"b": "2"}, "generation": 7}, "spec": 2});
        let got = asked(&review(good.clone())).unwrap();
        assert_eq!(got[0]["metadata"], json!({"name": "n", "uid": "u", "labels": {"b": "2"}, "finalizers": ["f/x"]}));
        assert_eq!(got[0]["spec"], 2);
        for (path, value, want) in [
            ("/metadata/uid", "z", "invalid converted object at index 0: must have the same UID: u != z"),
            ("/metadata/name", "z", "invalid converted object at index 0: must have the same name: n != z"),
            ("/apiVersion", "g/v1", "invalid converted object at index 0: invalid groupVersion, expected g/v2, got g/v1"),
            ("/kind", "Z", "invalid converted object at index 0: invalid kind, expected T, got Z"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = json!(value);
            assert_eq!(asked(&review(bad)).unwrap_err(), want);
        }
        let mut other = review(good.clone());
        other["response"]["uid"] = json!("y");
        assert_eq!(asked(&other).unwrap_err(), "invalid response: expected response.uid=\"x\", got \"y\"");
        let mut failed = review(good);
        failed["response"]["result"] = json!({"status": "Failure", "message": "no"});
        assert_eq!(asked(&failed).unwrap_err(), "no");
        failed["response"]["result"] = json!({"status": "Success"});
        failed["response"]["convertedObjects"] = json!([]);
        assert_eq!(asked(&failed).unwrap_err(), "returned 0 objects, expected 1");
    }
}
