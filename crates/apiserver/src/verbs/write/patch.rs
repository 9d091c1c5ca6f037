//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use machinery::apply::{self, Applied, ApplyError};
use machinery::field::{self, Path};
use machinery::gvk::{GroupKind, GroupVersionKind};
use machinery::patch::{JsonPatch, PatchError};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::{Ctx, Object, body};
use crate::http::{RequestBody, body as http_body};
use crate::verbs::Target;
use crate::verbs::options::FieldValidation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

pub struct Patch {
    pub kind: Kind,
    pub bytes: bytes::Bytes,
    /// The patch itself sets `metadata.resourceVersion`.
    pub names_version: bool,
    /// It may name `metadata.managedFields`, or the whole of what they are in.
    pub names_managers: bool,
}

/// Which kind of patch a request carries, by its content type.
pub fn kind_of(headers: &HeaderMap) -> Option<Kind> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match content_type.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => Some(Kind::Json),
        "application/merge-patch+json" => Some(Kind::Merge),
        "application/strategic-merge-patch+json" => Some(Kind::Strategic),
        "application/apply-patch+yaml" => Some(Kind::Apply),
        _ => None,
    }
}

/// Custom resources have no Go type whose tags a strategic merge would follow.
pub fn check_kind_of(headers: &HeaderMap, resource: &kinds::Resource) -> Result<(), StatusError> {
    if resource.custom.is_none() || !matches!(kind_of(headers), None | Some(Kind::Strategic)) {
        return Ok(());
    }
    let known = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    let text = format!("the body of the request was in an unknown format - accepted media types include: {known}");
    Err(StatusError::unsupported_media_type(text))
}

/// Reads the patch of a request.
pub async fn read(request: Request<RequestBody>) -> Result<Patch, StatusError> {
    let (parts, stream) = request.into_parts();
    let Some(kind) = kind_of(&parts.headers) else {
        let mut error = StatusError::unsupported_media_type("415: Unsupported Media Type");
        error.details = Some(Box::default());
        return Err(error);
    };
    let bytes = http_body::read(stream).await?;
    let names_version = match kind {
        // Hardly any patch does, so its bytes are looked through first: those that do not write the word do not mean it.
        _ if !bytes.contains(&b'\\') && !contains(&bytes, b"resourceVersion") => false,
        Kind::Json => machinery::json::parse(&bytes).is_ok_and(|p| {
            let at = |op: &Value| machinery::object::str_at(op, "path") == "/metadata/resourceVersion";
            p.value.as_array().is_some_and(|ops| ops.iter().any(at))
        }),
        Kind::Apply => machinery::yaml::parse(&bytes).is_ok_and(|p| !machinery::object::resource_version(&p.value).is_empty()),
        _ => machinery::json::parse(&bytes).is_ok_and(|p| !machinery::object::resource_version(&p.value).is_empty()),
    };
    let names_managers = match kind {
        Kind::Json => true,
        Kind::Apply => false,
        Kind::Merge | Kind::Strategic => bytes.contains(&b'\\') || contains_any_case(&bytes, b"managedfields"),
    };
    Ok(Patch { kind, bytes, names_version, names_managers })
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    let Some((first, _)) = word.split_first() else { return true };
    bytes.iter().enumerate().any(|(at, b)| b == first && bytes[at..].starts_with(word))
}

fn contains_any_case(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part[0] | 0x20 == word[0] && part.eq_ignore_ascii_case(word))
}

/// As [`applied`] to an object that is there.
pub fn applied_to(ctx: &Ctx, target: &Target, patch: &Patch, old: &Object) -> Result<Object, StatusError> {
    let Some(managers) = &old.managers else {
        return applied(ctx, target, patch, Some(&old.tree)).map(Object::whole);
    };
    if patch.kind != Kind::Apply {
        let tree = applied(ctx, target, patch, Some(&old.tree))?;
        return Ok(Object { tree, managers: Some(managers.clone()) });
    }
    let config = Configuration::read(ctx, target, patch)?;
    let (types, ty) = (&*target.resource.types, target.resource.ty);
    let writer = super::writer(ctx, target, &target.resource.gvk().api_version());
    let applied = apply::apply_apart(types, ty, (&old.tree, managers), &config.tree, &writer.as_writer(), ctx.options.force);
    let (applied, managers) = applied.map_err(|e| config.refused(target, &e))?;
    let tree = config.decoded(target, applied)?;
    Ok(Object { tree, managers: Some(managers) })
}

/// The object with the patch applied, in the form of its type, with its managed fields.
pub fn applied(ctx: &Ctx, target: &Target, patch: &Patch, old: Option<&Value>) -> Result<Value, StatusError> {
    let empty = json!({});
    let current = old.unwrap_or(&empty);
    let resource = &target.resource;
    let (mut value, mut strict) = match patch.kind {
        Kind::Apply => return apply(ctx, target, patch, old),
        Kind::Json => {
            let operations = JsonPatch::parse(&patch.bytes).map_err(|e| refused(&e))?;
            let value = operations.apply(current).map_err(|e| refused(&e))?;
            (value, operations.strict)
        }
        Kind::Merge => machinery::patch::merge(current, &patch.bytes).map_err(|e| refused(&e))?,
        Kind::Strategic => {
            let patched = machinery::patch::strategic(&resource.types, resource.ty, current, &patch.bytes);
            patched.map_err(|e| refused(&e))?
        }
    };
    let gvk = resource.gvk();
    let refuse = |why: &str| invalid(&shown(target, patch, current), why);
    for (key, default) in [("kind", gvk.kind.clone()), ("apiVersion", gvk.api_version())] {
        if machinery::object::str_at(&value, key).is_empty() {
            machinery::object::map_mut(&mut value, "").insert(key.to_owned(), default.into());
        }
    }
    let (kind, version) = (machinery::object::str_at(&value, "kind"), machinery::object::str_at(&value, "apiVersion"));
    if (kind, version) != (gvk.kind.as_str(), gvk.api_version().as_str()) && !matches!(patch.kind, Kind::Strategic) && old.is_some() {
        // Upstream decodes what came out by the kind it names, and knows none such.
        let scheme = body::scheme_of(&gvk.group);
        return Err(refuse(&format!("no kind {kind:?} is registered for version {version:?} in scheme {scheme:?}")));
    }
    let unknown = resource.decode(&mut value).map_err(|e| match patch.kind {
        Kind::Strategic => refuse(&e.restore),
        _ => refuse(&e.text),
    })?;
    strict.extend(unknown);
    check_identity(&value, &gvk)?;
    match ctx.options.validation {
        FieldValidation::Ignore => {}
        FieldValidation::Strict if !strict.is_empty() => return Err(refuse(&machinery::decode::strict_text(&strict))),
        _ => ctx.notes.warn_of(strict),
    }
    Ok(value)
}

/// An applied configuration as a tree.
fn yaml(bytes: &[u8]) -> Result<machinery::yaml::Parsed, StatusError> {
    machinery::yaml::parse(bytes).map_err(|e| StatusError::bad_request(format!("error decoding YAML: {e}")))
}

fn refused(error: &PatchError) -> StatusError {
    let mut status = error.to_status();
    if status.code == 422 {
        status.details.get_or_insert_default();
    }
    status
}

/// A patched object must still be of the endpoint's kind.
fn check_identity(value: &Value, gvk: &GroupVersionKind) -> Result<(), StatusError> {
    let (kind, version) = (machinery::object::str_at(value, "kind"), machinery::object::str_at(value, "apiVersion"));
    if kind == gvk.kind && version == gvk.api_version() {
        return Ok(());
    }
    let given = machinery::gvk::GroupVersion::parse(version).map_err(StatusError::bad_request)?.kind(kind);
    Err(StatusError::bad_request(format!("{given} does not match the expected {gvk}")))
}

/// What upstream shows of a patch it refuses: a strategic one itself, for others the patched object, so it is patched again.
fn shown(target: &Target, patch: &Patch, current: &Value) -> String {
    let parsed = machinery::json::parse(&patch.bytes).map(|p| p.value).unwrap_or_default();
    let (types, ty) = (&*target.resource.types, target.resource.ty);
    let patched = match patch.kind {
        Kind::Json => JsonPatch::parse(&patch.bytes).ok().and_then(|p| Some((p.apply(current).ok()?, p.touched()))),
        Kind::Merge => machinery::patch::merge(current, &patch.bytes).ok().map(|(value, _)| (value, parsed.clone())),
        Kind::Strategic | Kind::Apply => None,
    };
    match patched {
        Some((value, touched)) => machinery::patch::shown(types, ty, &value, &touched),
        None => machinery::apply::go_print(&parsed),
    }
}

/// 422 about the patch itself.
fn invalid(shown: &str, why: &str) -> StatusError {
    let error = field::Error::invalid_str(&Path::new("patch"), shown, why);
    StatusError::invalid(&GroupKind::default(), "", &[error])
}

fn judge(ctx: &Ctx, patch: &Patch, strict: Vec<String>) -> Result<(), StatusError> {
    match ctx.options.validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Strict if !strict.is_empty() => {
            Err(invalid(&String::from_utf8_lossy(&patch.bytes), &machinery::decode::strict_text(&strict)))
        }
        _ => {
            ctx.notes.warn_of(strict);
            Ok(())
        }
    }
}

/// What is to be applied.
struct Configuration {
    tree: Value,
}

impl Configuration {
    fn read(ctx: &Ctx, target: &Target, patch: &Patch) -> Result<Self, StatusError> {
        let machinery::yaml::Parsed { value: tree, strict } = yaml(&patch.bytes)?;
        let gvk = target.resource.gvk();
        if !tree.is_object() && !tree.is_null() {
            return Err(StatusError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                machinery::json::go_kind(&tree)
            )));
        }
        let (kind, version) = (machinery::object::str_at(&tree, "kind"), machinery::object::str_at(&tree, "apiVersion"));
        if kind != gvk.kind || version != gvk.api_version() {
            let given = machinery::gvk::GroupVersion::parse(version).map_err(StatusError::bad_request)?.kind(kind);
            return Err(StatusError::bad_request(format!("invalid object type: {given}")));
        }
        let name = machinery::object::name(&tree);
        if name != target.name {
            let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
            if !name.is_empty() {
                return Err(StatusError::bad_request(text));
            }
        }
        // Unknown fields and wrong types are the typed parser's to refuse, whatever the field validation.
        judge(ctx, patch, strict)?;
        Ok(Self { tree })
    }

    /// Upstream names the applied configuration, which may leave its namespace to the URL.
    fn refused(&self, target: &Target, error: &ApplyError) -> StatusError {
        error.to_status(&format!("{}/{}; {}", machinery::object::namespace(&self.tree), target.name, target.resource.gvk()))
    }

    /// The outcome in the form of its type.
    fn decoded(&self, target: &Target, applied: Applied) -> Result<Value, StatusError> {
        let mut value = applied.object;
        target.resource.decode_made(&mut value).map_err(|e| StatusError::new(500, "", e.to_string()))?;
        Ok(value)
    }
}

fn apply(ctx: &Ctx, target: &Target, patch: &Patch, old: Option<&Value>) -> Result<Value, StatusError> {
    let (resource, config) = (&target.resource, Configuration::read(ctx, target, patch)?);
    let writer = super::writer(ctx, target, &resource.gvk().api_version());
    let applied = apply::apply(&resource.types, resource.ty, old, &config.tree, &writer.as_writer(), ctx.options.force);
    config.decoded(target, applied.map_err(|e| config.refused(target, &e))?)
}
