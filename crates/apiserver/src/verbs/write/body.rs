//! Request bodies to objects: JSON or YAML, of the kind the endpoint takes, normalised by the type's facts; unknown fields
//! refused, warned of or dropped as `fieldValidation` says.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use kinds::Resource;
use machinery::gvk::{GroupVersion, GroupVersionKind};
use machinery::object::str_at;
use machinery::schema::TypeId;
use machinery::status::StatusError;
use machinery::{decode, json, yaml};
use serde_json::Value;

use crate::http::{RequestBody, body};
use crate::protobuf;
use crate::registry::Registry;
use crate::verbs::options::FieldValidation;

/// A decoded object and what its author should be warned of.
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
    Protobuf,
}

/// A body's bytes with its form.
pub struct Raw {
    pub bytes: Bytes,
    pub form: Form,
}

/// Reads the body, if its content type is one of ours.
pub async fn raw(request: Request<RequestBody>) -> Result<Raw, StatusError> {
    let (parts, body) = request.into_parts();
    let form = form_of(&parts.headers)?;
    Ok(Raw { bytes: body::read(body).await?, form })
}

fn form_of(headers: &HeaderMap) -> Result<Form, StatusError> {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match text.split(';').next().unwrap_or("").trim() {
        "" | "application/json" => Ok(Form::Json),
        "application/yaml" => Ok(Form::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Form::Protobuf),
        _ => Err(StatusError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

impl Raw {
    /// The tree and the errors strict mode knows: keys that come twice.
    pub fn parse(&self, want: &GroupVersionKind) -> Result<(Value, Vec<String>), StatusError> {
        match self.form {
            Form::Yaml => {
                let parsed = yaml::parse(&self.bytes).map_err(|e| self.unrecognized(want, e.reason()))?;
                Ok((parsed.value, parsed.strict))
            }
            Form::Protobuf => Ok((protobuf::decode(&self.bytes, want)?, Vec::new())),
            Form::Json => {
                let parsed = json::parse(&self.bytes)
                    .map_err(|e| self.unrecognized(want, &format!("couldn't get version/kind; json parse error: {e}")))?;
                Ok((parsed.value, parsed.strict))
            }
        }
    }

    /// The error of bytes that do not say what they are.
    fn unrecognized(&self, want: &GroupVersionKind, why: &str) -> StatusError {
        if want.kind == "DeleteOptions" {
            // Upstream decodes these by another way, which says less.
            return StatusError::bad_request(why);
        }
        StatusError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({})",
            want.kind,
            summary(&self.bytes)
        ))
    }

    /// What keeps even the kind from being read: upstream reads `kind` and `apiVersion` first, in any case of letters.
    fn check_meta(&self, value: &Value, want: &GroupVersionKind) -> Result<(), StatusError> {
        let go = machinery::json::go_kind;
        let Some(map) = value.as_object() else {
            let what = go(value);
            return Err(self.unrecognized(want, &format!("couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}")));
        };
        for (key, value) in map {
            let known = ["apiVersion", "kind"].into_iter().find(|k| k.eq_ignore_ascii_case(key));
            if let Some(field) = known.filter(|_| !value.is_string() && !value.is_null()) {
                let what = go(value);
                let why = format!(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go struct field .{field} of type string"
                );
                return Err(self.unrecognized(want, &why));
            }
        }
        Ok(())
    }

    /// What a custom resource says it is: it must say so, another kind is validation's to refuse.
    fn check_custom(&self, value: &Value, want: &GroupVersionKind, validation: FieldValidation) -> Result<(), StatusError> {
        if str_at(value, "kind").is_empty() {
            let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(&self.bytes));
            // Who does not look for unknown fields decodes by another way, which knows the kind by then.
            return Err(match validation {
                FieldValidation::Ignore => cannot_handle(want, &why),
                FieldValidation::Warn | FieldValidation::Strict => self.unrecognized(want, &why),
            });
        }
        let (wanted, given) = (want.api_version(), str_at(value, "apiVersion"));
        if given != wanted {
            let text = format!("the API version in the data ({given}) does not match the expected API version ({wanted})");
            return Err(StatusError::bad_request(text));
        }
        Ok(())
    }
}

/// The beginning of a body for an error: text if it looks like an object, else hexadecimal (`summarizeData`).
fn summary(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 30;
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if bytes.len() > SHOWN_BYTES { " ..." } else { "" };
    match shown {
        [] => "<empty>".to_owned(),
        [b'{', ..] => format!("{}{more}", String::from_utf8_lossy(shown)),
        other => format!("{}{more}", hex::encode(other)),
    }
}

/// Reads an object of a built-in kind that is no row of the table: a Scale, a Binding.
pub async fn object(
    request: Request<RequestBody>,
    registry: &Registry,
    want: &GroupVersionKind,
    ty: TypeId,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    decode_object(&raw(request).await?, registry, want, ty, validation)
}

pub fn decode_object(
    raw: &Raw,
    registry: &Registry,
    want: &GroupVersionKind,
    ty: TypeId,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    decode_as(raw, registry, want, &|value| typed(value, ty), validation)
}

type Normalise<'a> = dyn Fn(&mut Value) -> Result<Vec<String>, String> + Sync + 'a;

fn decode_as(
    raw: &Raw,
    registry: &Registry,
    want: &GroupVersionKind,
    normalise: &Normalise<'_>,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let (mut value, repeated) = raw.parse(want)?;
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    raw.check_meta(&value, want)?;
    if is_custom(registry, want) {
        raw.check_custom(&value, want, validation)?;
    } else {
        check_kind(&mut value, registry, want)?;
    }
    let strict = normalise(&mut value).map_err(|e| cannot_handle(want, &e))?;
    let warnings = judge(raw.form, repeated, strict, want, validation)?;
    Ok(Decoded { object: value, warnings })
}

/// The body of a request for a row of the table.
pub struct Body(Raw);

impl Body {
    pub async fn read(request: Request<RequestBody>, resource: &Resource) -> Result<Self, StatusError> {
        if resource.custom.is_some() && form_of(request.headers())? == Form::Protobuf {
            let known = "application/json, application/yaml";
            let text = format!("the body of the request was in an unknown format - accepted media types include: {known}");
            return Err(StatusError::unsupported_media_type(text));
        }
        Ok(Self(raw(request).await?))
    }

    pub fn decode(&self, registry: &Registry, resource: &Resource, validation: FieldValidation) -> Result<Decoded, StatusError> {
        let normalise = |value: &mut Value| resource.decode(value).map_err(|e| e.to_string());
        decode_as(&self.0, registry, &resource.gvk(), &normalise, validation)
    }
}

/// Reads an object of a row of the table.
pub async fn of_resource(
    request: Request<RequestBody>,
    registry: &Registry,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    Body::read(request, resource).await?.decode(registry, resource, validation)
}

/// Brings a tree into the form of a built-in type. Answers the strict errors, or why it is not of the type.
pub fn typed(value: &mut Value, ty: TypeId) -> Result<Vec<String>, String> {
    decode::decode(kinds::types(), ty, value).map_err(|e| e.to_string())
}

pub fn cannot_handle(want: &GroupVersionKind, why: &str) -> StatusError {
    cannot_handle_as(want, want, why)
}

/// As [`cannot_handle`], of an object that says it is of another kind.
fn cannot_handle_as(want: &GroupVersionKind, given: &GroupVersionKind, why: &str) -> StatusError {
    StatusError::bad_request(format!("{} in version {:?} cannot be handled as a {}: {why}", given.kind, given.version, want.kind))
}

/// `repeated` are keys that came twice, `strict` what decoding found.
fn judge(
    form: Form,
    repeated: Vec<String>,
    strict: Vec<String>,
    want: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Vec<String>, StatusError> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(repeated.into_iter().chain(strict).collect()),
        FieldValidation::Strict if strict.is_empty() && repeated.is_empty() => Ok(strict),
        FieldValidation::Strict => {
            // The YAML reader's errors come as one.
            let repeated = if form == Form::Yaml { yaml::strict_text(&repeated).into_iter().collect() } else { repeated };
            let all: Vec<String> = repeated.into_iter().chain(strict).collect();
            Err(cannot_handle(want, &decode::strict_text(&all)))
        }
    }
}

fn is_custom(registry: &Registry, want: &GroupVersionKind) -> bool {
    !registry.is_built_in(want) && registry.versioned_kind(want).is_some()
}

/// Fills in kind and version where they are missing; refuses others.
fn check_kind(value: &mut Value, registry: &Registry, want: &GroupVersionKind) -> Result<(), StatusError> {
    let (kind, api_version) = (str_at(value, "kind").to_owned(), str_at(value, "apiVersion").to_owned());
    let given =
        if api_version.is_empty() { want.group_version() } else { GroupVersion::parse(&api_version).map_err(StatusError::bad_request)? };
    let given = given.kind(if kind.is_empty() { want.kind.clone() } else { kind });
    if given != *want {
        let known = registry.versioned_kind(&given).is_some() || kinds::table().type_of(&given).is_some();
        let scheme = scheme_of(&want.group);
        if !known || scheme_of(&given.group) != scheme {
            let why = format!("no kind {:?} is registered for version {:?} in scheme {scheme:?}", given.kind, given.api_version());
            return Err(cannot_handle_as(want, &given, &why));
        }
        if given.group_kind() != want.group_kind() {
            // It is decoded as what it says it is before anybody sees that this is something else.
            if let Some(ty) = kinds::table().type_of(&given)
                && let Err(why) = typed(&mut value.clone(), ty)
            {
                return Err(cannot_handle_as(want, &given, &why));
            }
            let why = format!("converting ({}.{}) to ({}.{}): unknown conversion", given.version, given.kind, package_of(want), want.kind);
            return Err(cannot_handle_as(want, &given, &why));
        }
    }
    if let Some(map) = value.as_object_mut() {
        map.insert("kind".to_owned(), Value::String(want.kind.clone()));
        map.insert("apiVersion".to_owned(), Value::String(want.api_version()));
    }
    Ok(())
}

/// Where upstream makes the scheme that knows a group's kinds.
pub fn scheme_of(group: &str) -> &'static str {
    match group {
        "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

/// The package of a kind's internal type.
fn package_of(kind: &GroupVersionKind) -> &str {
    match kind.group.as_str() {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// An object with nothing in it but what is given, as Go prints it: for bookmarks.
pub fn blank(resource: &Resource, mut object: Value) -> Value {
    if let Err(e) = resource.decode(&mut object) {
        tracing::error!(error = %e, kind = resource.kind, "an empty object does not decode");
    }
    object
}
