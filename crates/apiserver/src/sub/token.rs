//! `serviceaccounts/token`: a TokenRequest is answered with a signed JWT, bound to a pod, a secret or a node if asked.

use http::Request;
use machinery::field::{Error, Path};
use machinery::gvk::{GroupKind, GroupVersionKind};
use machinery::object::{self, map_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::status::number;
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::{self, Answer};
use crate::http::{RequestBody, negotiate};
use crate::identifiers;
use crate::verbs::Target;
use crate::verbs::options::WriteOptions;
use crate::verbs::write::{Ctx, body, fetch};

const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;
/// Projected volumes ask for this; such tokens live a year in truth, so that clients that never reload keep working.
const LEGACY_SECONDS: i64 = 3607;
const YEAR_SECONDS: i64 = 365 * 86400;

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let want = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let ty = kinds::table().type_of(&want).ok_or_else(|| StatusError::internal("no type for TokenRequest"))?;
    let mut asked = body::object(request, &call.api.registry, &want, ty, options.validation).await?.object;
    let place = Target { subresource: String::new(), ..target.clone() };
    let Some((account, _)) = fetch(&call.api, &place).await? else { return Err(target.not_found()) };
    for (key, wanted) in [("name", target.name.as_str()), ("namespace", target.namespace.as_str())] {
        let given = str_at(&asked, &format!("metadata.{key}")).to_owned();
        if !given.is_empty() && given != wanted {
            return Err(StatusError::bad_request(format!("the {key} of the provided object does not match the {key} sent on the request")));
        }
        map_mut(&mut asked, "metadata").insert(key.into(), json!(wanted));
    }
    fill(&call, &mut asked)?;
    let ctx = Ctx::new(&call, options);
    admission::admit(&admission::Request::new(&ctx, &target, Operation::Create), &mut asked, None).await?;
    let bound = bound_object(&call, &asked, &target).await?;
    issue(&call, &mut asked, &account, bound)?;
    Ok(respond::value(201, &negotiated, &asked))
}

fn fill(call: &Call, asked: &mut Value) -> Result<(), StatusError> {
    let spec = map_mut(asked, "spec");
    if spec.get("audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("audiences".into(), json!(call.api.config.audiences()));
    }
    if spec.get("expirationSeconds").is_none_or(Value::is_null) {
        spec.insert("expirationSeconds".into(), json!(DEFAULT_SECONDS));
    }
    spec.entry("boundObjectRef").or_insert(Value::Null);
    let seconds = number(asked, "spec.expirationSeconds");
    let path = Path::new("spec.expirationSeconds");
    let mut errors = Vec::new();
    if seconds < MIN_SECONDS {
        errors.push(Error::invalid(&path, &json!(seconds), "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(Error::invalid(&path, &json!(seconds), "may not specify a duration larger than 2^32 seconds"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() };
    Err(StatusError::invalid(&kind, "", &errors))
}

/// The object the token lives and dies with.
async fn bound_object(call: &Call, asked: &Value, target: &Target) -> Result<Option<Value>, StatusError> {
    let Some(reference) = asked.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else { return Ok(None) };
    let (kind, version, name) = (str_at(reference, "kind"), str_at(reference, "apiVersion"), str_at(reference, "name"));
    if version != "v1" || !matches!(kind, "Pod" | "Secret" | "Node") {
        return Err(StatusError::bad_request(format!("cannot bind token for object of type {version}, Kind={kind}")));
    }
    let Some(resource) = call.api.registry.kind("", kind) else { return Ok(None) };
    let namespace = if resource.namespaced { target.namespace.as_str() } else { "" };
    let Some(found) = call.api.read(&resource, namespace, name).await? else {
        return Err(StatusError::not_found(&resource.group_resource(), name));
    };
    let uid = str_at(reference, "uid");
    if !uid.is_empty() && uid != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(StatusError::conflict(&resource.group_resource(), name, &why));
    }
    if kind == "Pod" && str_at(&found, "spec.serviceAccountName") != target.name {
        return Err(StatusError::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            target.name
        )));
    }
    Ok(Some(found))
}

fn issue(call: &Call, asked: &mut Value, account: &Value, bound: Option<Value>) -> Result<(), StatusError> {
    let now = jiff::Timestamp::now().as_second();
    let seconds = number(asked, "spec.expirationSeconds");
    let audiences = asked.pointer("/spec/audiences").cloned().unwrap_or_default();
    let own_audience = audiences == json!(call.api.config.audiences());
    let extended = seconds == LEGACY_SECONDS && bound.is_some() && own_audience;
    let until = now + if extended { YEAR_SECONDS } else { seconds };
    let reference = |v: &Value| json!({"name": object::name(v), "uid": object::uid(v)});
    let mut private = json!({"namespace": object::namespace(account), "serviceaccount": reference(account)});
    if let Some(found) = &bound {
        private[str_at(found, "kind").to_ascii_lowercase()] = reference(found);
        if str_at(found, "kind") == "Pod" && !str_at(found, "spec.nodeName").is_empty() {
            private["node"] = json!({"name": str_at(found, "spec.nodeName")});
        }
    }
    if extended {
        private["warnafter"] = json!(now + seconds);
    }
    let claims = json!({
        "aud": audiences, "exp": until, "iat": now, "nbf": now, "iss": call.api.config.service_account_issuer,
        "jti": identifiers::uuid(), "kubernetes.io": private,
        "sub": format!("system:serviceaccount:{}:{}", object::namespace(account), object::name(account)),
    });
    let token = call.api.pki.service_account.sign(&claims).ok_or_else(|| StatusError::internal("the token could not be signed"))?;
    let expires = jiff::Timestamp::from_second(now + seconds).map(identifiers::time_text).unwrap_or_default();
    if let Some(map) = asked.as_object_mut() {
        map.insert("status".into(), json!({"token": token, "expirationTimestamp": expires}));
    }
    map_mut(asked, "metadata").insert("creationTimestamp".into(), json!(identifiers::now()));
    Ok(())
}
