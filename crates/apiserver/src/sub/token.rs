//! `serviceaccounts/token`: a TokenRequest is answered with a signed JWT, bound to a pod, a secret or a node if asked
//! (upstream's `TokenREST`).

use http::Request;
use machinery::field::{Error, Path};
use machinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
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

const GROUP: &str = "authentication.k8s.io";
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Projected volumes ask for this; such tokens live a year in truth, so that clients that never reload keep working.
const LEGACY_SECONDS: i64 = 3607;
const YEAR_SECONDS: i64 = 365 * 86400;

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, false, true)?;
    let options = WriteOptions::parse(&call, "CreateOptions")?;
    let want = GroupVersionKind::new(GROUP, "v1", "TokenRequest");
    let ty = kinds::table().type_of(&want).ok_or_else(|| StatusError::internal("no type for TokenRequest"))?;
    let mut asked = body::object(request, &call.api.registry, &want, ty, options.validation).await?.object;
    default(&mut asked);
    let ctx = Ctx::new(&call, options);
    let admitted = admission::Request::new(&ctx, &target, Operation::Create);
    admission::mutate(&admitted, &mut asked, None).await?;
    matches_url(&asked, &target)?;
    let place = Target { subresource: String::new(), ..target.clone() };
    let Some((account, _)) = fetch(&call.api, &place).await? else { return Err(target.not_found()) };
    fill(&call, &mut asked, &account);
    validate(&asked)?;
    admission::validate(&admitted, &asked, None).await?;
    same_account(&mut asked, &account)?;
    let bound = bound_object(&call, &asked, &target).await?;
    shorten(&call, &mut asked);
    issue(&call, &mut asked, &account, &bound).await?;
    Ok(respond::value(201, &negotiated, &asked))
}

/// Upstream's defaults of the type.
fn default(asked: &mut Value) {
    let spec = map_mut(asked, "spec");
    if spec.get("expirationSeconds").is_none_or(Value::is_null) {
        spec.insert("expirationSeconds".into(), json!(3600));
    }
    spec.entry("audiences").or_insert(Value::Null);
    spec.entry("boundObjectRef").or_insert(Value::Null);
}

fn invalid(name: &str, errors: &[Error]) -> StatusError {
    StatusError::invalid(&GroupKind { group: GROUP.into(), kind: "TokenRequest".into() }, name, errors)
}

fn matches_url(asked: &Value, target: &Target) -> Result<(), StatusError> {
    for (key, wanted) in [("name", target.name.as_str()), ("namespace", target.namespace.as_str())] {
        let given = str_at(asked, &format!("metadata.{key}"));
        if !given.is_empty() && given != wanted {
            let text = format!("must match the service account {key} if specified");
            return Err(invalid(&target.name, &[Error::invalid_str(&Path::new("metadata").child(key), given, text)]));
        }
    }
    Ok(())
}

fn fill(call: &Call, asked: &mut Value, account: &Value) {
    let spec = map_mut(asked, "spec");
    if spec.get("audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("audiences".into(), json!(call.api.config.audiences()));
    }
    let metadata = map_mut(asked, "metadata");
    metadata.insert("name".into(), json!(object::name(account)));
    metadata.insert("namespace".into(), json!(object::namespace(account)));
    metadata.insert("creationTimestamp".into(), json!(identifiers::now()));
}

fn validate(asked: &Value) -> Result<(), StatusError> {
    let seconds = number(asked, "spec.expirationSeconds");
    let path = Path::new("spec.expirationSeconds");
    let mut errors = Vec::new();
    if seconds < MIN_SECONDS {
        errors.push(Error::invalid(&path, &json!(seconds), "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(Error::invalid(&path, &json!(seconds), "may not specify a duration larger than 2^32 seconds"));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid("", &errors)) }
}

/// A uid in the request is that of the account.
fn same_account(asked: &mut Value, account: &Value) -> Result<(), StatusError> {
    let (given, own) = (object::uid(asked).to_owned(), object::uid(account));
    if !given.is_empty() && given != own {
        let why = format!("the UID in the token request ({given}) does not match the UID of the service account ({own})");
        let resource = GroupResource::new(GROUP, "TokenRequest");
        return Err(StatusError::conflict(&resource, object::name(account), &why));
    }
    Ok(())
}

/// What the token lives and dies with, and the node of a pod.
#[derive(Default)]
struct Bound {
    kind: &'static str,
    name: String,
    uid: String,
    /// Name and uid; the uid is empty for a node that is not there.
    node: Option<(String, String)>,
}

async fn bound_object(call: &Call, asked: &Value, target: &Target) -> Result<Bound, StatusError> {
    let Some(reference) = asked.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else { return Ok(Bound::default()) };
    let (given, version, name) = (str_at(reference, "kind"), str_at(reference, "apiVersion"), str_at(reference, "name"));
    let Some(kind) = ["Pod", "Secret", "Node"].into_iter().find(|k| *k == given).filter(|_| !version.contains('/')) else {
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(StatusError::bad_request(format!("cannot bind token for object of type {slash}{version}, Kind={given}")));
    };
    let Some(resource) = call.api.registry.kind("", kind) else { return Err(StatusError::internal("a core kind is not known")) };
    let namespace = if resource.namespaced { target.namespace.as_str() } else { "" };
    let Some(found) = call.api.read(&resource, namespace, name).await? else {
        return Err(StatusError::not_found(&resource.group_resource(), name));
    };
    if kind == "Pod" && str_at(&found, "spec.serviceAccountName") != target.name {
        return Err(StatusError::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            target.name
        )));
    }
    let uid = str_at(reference, "uid");
    if !uid.is_empty() && uid != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(StatusError::conflict(&GroupResource::new("", kind), name, &why));
    }
    let mut bound = Bound { kind, name: name.to_owned(), uid: object::uid(&found).to_owned(), node: None };
    let node = str_at(&found, "spec.nodeName");
    if kind == "Pod" && !node.is_empty() {
        let there = call.api.read_kind("", "Node", "", node).await?;
        bound.node = Some((node.to_owned(), there.map(|n| object::uid(&n).to_owned()).unwrap_or_default()));
    }
    Ok(bound)
}

/// No token lives longer than the operator allows.
fn shorten(call: &Call, asked: &mut Value) {
    let Some(max) = call.api.config.authentication.service_account.max_token_expiration else { return };
    let (seconds, max) = (number(asked, "spec.expirationSeconds"), i64::try_from(max.as_secs()).unwrap_or(i64::MAX));
    if max > 0 && seconds > max {
        call.notes.warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
        map_mut(asked, "spec").insert("expirationSeconds".into(), json!(max));
    }
}

async fn issue(call: &Call, asked: &mut Value, account: &Value, bound: &Bound) -> Result<(), StatusError> {
    let now = jiff::Timestamp::now().as_second();
    let seconds = number(asked, "spec.expirationSeconds");
    let audiences = asked.pointer("/spec/audiences").cloned().unwrap_or_default();
    let own = call.api.config.audiences();
    let for_us = audiences.as_array().into_iter().flatten().all(|a| own.iter().any(|o| *a == o.as_str()));
    let options = &call.api.config.authentication.service_account;
    let extended = options.extend_token_expiration && seconds == LEGACY_SECONDS && bound.kind == "Pod" && for_us;
    let until = now + if extended { YEAR_SECONDS } else { seconds };
    let reference = |name: &str, uid: &str| {
        let mut reference = json!({"name": name});
        if !uid.is_empty() {
            reference["uid"] = json!(uid);
        }
        reference
    };
    let mut private = json!({
        "namespace": object::namespace(account), "serviceaccount": reference(object::name(account), object::uid(account)),
    });
    if !bound.kind.is_empty() {
        private[bound.kind.to_ascii_lowercase()] = reference(&bound.name, &bound.uid);
    }
    if let Some((name, uid)) = &bound.node {
        private["node"] = reference(name, uid);
    }
    if extended {
        private["warnafter"] = json!(now + seconds);
    }
    let id = identifiers::uuid();
    let claims = json!({
        "aud": audiences, "exp": until, "iat": now, "nbf": now, "iss": call.api.config.service_account_issuer,
        "jti": id, "kubernetes.io": private,
        "sub": format!("system:serviceaccount:{}:{}", object::namespace(account), object::name(account)),
    });
    let token = call.api.pki.service_account().await.sign(&claims).ok_or_else(|| StatusError::internal("the token could not be signed"))?;
    call.notes.annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={id}"));
    let expires = jiff::Timestamp::from_second(now + seconds).map(identifiers::time_text).unwrap_or_default();
    if let Some(map) = asked.as_object_mut() {
        map.insert("status".into(), json!({"token": token, "expirationTimestamp": expires}));
    }
    Ok(())
}
