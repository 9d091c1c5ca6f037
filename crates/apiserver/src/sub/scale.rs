//! `scale`: the replicas of a workload as an autoscaling/v1 Scale. A Scale is not stored: it is read out of the object, changed
//! as any object is, also by server-side apply, and what changed goes back, ownership of the replicas with it.

use std::sync::{Arc, LazyLock};

use http::Request;
use kinds::custom::ScalePaths;
use kinds::resource::Column;
use kinds::{Resource, Strategy};
use machinery::apply::{self, scale as owners};
use machinery::field::{Error, Path};
use machinery::gvk::GroupKind;
use machinery::object::{self, map_mut, metadata_mut, str_at};
use machinery::status::StatusError;
use serde_json::{Value, json};

use super::status::number;
use crate::admission::{self, Operation};
use crate::chain::Call;
use crate::http::respond::Answer;
use crate::http::{RequestBody, negotiate};
use crate::verbs::options::WriteOptions;
use crate::verbs::write::update::{Admission, Change, uid_mismatch, update};
use crate::verbs::write::{Ctx, body, fetch, patch, writer};
use crate::verbs::{Target, view};

/// How often a change that names no resourceVersion is tried on a moving object.
const ATTEMPTS: usize = 5;

/// How a Scale is decoded, patched and shown: a row of no resource.
pub static ROW: LazyLock<Arc<Resource>> = LazyLock::new(|| {
    let like = kinds::table().resources().iter().find(|r| r.group == "autoscaling").unwrap_or_else(|| &kinds::table().resources()[0]);
    let mut row = Resource::clone(like);
    (row.group, row.version, row.kind) = ("autoscaling".to_owned(), "v1".to_owned(), "Scale".to_owned());
    row.storage_version = row.gvk().group_version();
    (row.types, row.custom) = (kinds::shared_types(), None);
    row.ty = kinds::types().named("io.k8s.api.autoscaling.v1.Scale").unwrap_or_default();
    row.strategy = Arc::new(Shown);
    let described = |name: &str, column_type: &str, by: &str| Column {
        name: name.to_owned(),
        column_type: column_type.to_owned(),
        described_by: by.to_owned(),
        ..Column::default()
    };
    row.columns = vec![
        described("Name", "string", ""),
        described("Desired", "integer", "io.k8s.api.autoscaling.v1.ScaleSpec#replicas"),
        described("Available", "integer", "io.k8s.api.autoscaling.v1.ScaleStatus#replicas"),
        described("Age", "string", ""),
    ];
    row.columns.iter_mut().for_each(Column::describe_standard);
    Arc::new(row)
});

/// The cells of a Scale.
struct Shown;

impl Strategy for Shown {
    fn cells(&self, scale: &Value, now: i64) -> Option<Vec<Value>> {
        let replicas = |path| json!(number(scale, path));
        Some(vec![json!(object::name(scale)), replicas("spec.replicas"), replicas("status.replicas"), kinds::columns::age(scale, now)])
    }
}

/// Where an object has what its Scale shows.
struct Paths {
    replicas: String,
    current: String,
    /// Text in a custom resource; `None` for built-in kinds, which have selectors.
    selector: Option<String>,
}

impl Paths {
    fn of(resource: &Resource) -> Self {
        let dotted = |path: &str| path.trim_start_matches('.').to_owned();
        match resource.custom.as_ref().and_then(|c| c.scale.as_ref()) {
            Some(ScalePaths { spec_replicas, status_replicas, label_selector }) => {
                Self { replicas: dotted(spec_replicas), current: dotted(status_replicas), selector: Some(dotted(label_selector)) }
            }
            None => Self { replicas: "spec.replicas".to_owned(), current: "status.replicas".to_owned(), selector: None },
        }
    }
}

/// The Scale of an object. The selector is text.
fn scale_of(resource: &Resource, object: &Value) -> Value {
    let paths = Paths::of(resource);
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            metadata[key] = value.clone();
        }
    }
    let mut spec = json!({});
    if number(object, &paths.replicas) != 0 {
        spec["replicas"] = json!(number(object, &paths.replicas));
    }
    let mut status = json!({"replicas": number(object, &paths.current)});
    let selector = match &paths.selector {
        Some(path) => str_at(object, path).to_owned(),
        None => selector_text(resource, object),
    };
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn selector_text(resource: &Resource, object: &Value) -> String {
    let selector = object.pointer("/spec/selector");
    let selector = if resource.kind == "ReplicationController" {
        machinery::labels::from_map(selector)
    } else {
        machinery::labels::from_label_selector(selector).unwrap_or_default()
    };
    selector.to_string()
}

/// What a request wants of the Scale.
enum Wanted {
    Put(Value),
    Patch(patch::Patch),
}

pub async fn serve(call: Call, request: Request<RequestBody>, target: Target) -> Result<Answer, StatusError> {
    let negotiated = negotiate::negotiate(&call.headers, &call.query, true, true)?;
    if call.info.verb == "get" {
        let Some((object, _)) = fetch(&call.api, &target).await? else { return Err(target.not_found()) };
        replicas_are_there(&target, &object)?;
        return view::object(&call, &negotiated, &ROW, 200, &scale_of(&target.resource, &object));
    }
    let patching = call.info.verb == "patch";
    let options = WriteOptions::parse(&call, if patching { "PatchOptions" } else { "UpdateOptions" })?;
    let wanted = if patching {
        Wanted::Patch(patch::read(request).await?)
    } else {
        let decoded = body::of_resource(request, &call.api.registry, &ROW, options.validation).await?;
        call.notes.warn_of(decoded.warnings);
        Wanted::Put(decoded.object)
    };
    let ctx = Ctx::new(&call, options);
    let written = change(&ctx, &target, &wanted).await?;
    view::object(&call, &negotiated, &ROW, 200, &scale_of(&target.resource, &written))
}

/// The replicas of a custom resource may be absent, then there is nothing to scale.
fn replicas_are_there(target: &Target, object: &Value) -> Result<(), StatusError> {
    let custom = target.resource.custom.as_ref().and_then(|c| c.scale.as_ref());
    match custom {
        Some(paths) if object::at(object, paths.spec_replicas.trim_start_matches('.')).is_none() => {
            Err(StatusError::internal(format!("the spec replicas field {:?} does not exist", paths.spec_replicas)))
        }
        _ => Ok(()),
    }
}

/// Changes the Scale, and the object with it, until it holds or must not be tried again. Answers the object.
async fn change(ctx: &Ctx, target: &Target, wanted: &Wanted) -> Result<Value, StatusError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Some((current, _)) = fetch(&ctx.api, target).await? else { return Err(target.not_found()) };
        let paths = Paths::of(&target.resource);
        let old = scale_with_owners(target, &current, &paths);
        let mut scale = changed(ctx, target, wanted, &old)?;
        let named = match wanted {
            Wanted::Put(_) => !object::resource_version(&scale).is_empty(),
            Wanted::Patch(patch) => patch.names_version,
        };
        if named && object::resource_version(&scale) != object::resource_version(&current) {
            return Err(StatusError::stale(&target.resource.group_resource(), &target.name));
        }
        let request = admission::Request::new(ctx, target, Operation::Update);
        admission::mutate(&request, &mut scale, Some(&old)).await?;
        check(&scale, target, &current)?;
        admission::validate(&request, &scale, Some(&old)).await?;
        match set_replicas(ctx, target, &paths, scale, &current).await {
            Err(error) if error.code == 409 && !named && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
            Ok(written) => return Ok(Arc::unwrap_or_clone(written.object).into_value()),
        }
    }
}

fn scale_with_owners(target: &Target, object: &Value, paths: &Paths) -> Value {
    let mut scale = scale_of(&target.resource, object);
    let owners = owners::to_scale(object, &paths.replicas);
    if !owners.is_null() {
        metadata_mut(&mut scale).insert("managedFields".to_owned(), owners);
    }
    scale
}

/// The Scale as it shall be, its managed fields noted.
fn changed(ctx: &Ctx, target: &Target, wanted: &Wanted, old: &Value) -> Result<Value, StatusError> {
    let place = Target { resource: ROW.clone(), ..target.clone() };
    let (mut scale, applied) = match wanted {
        Wanted::Put(scale) => (scale.clone(), false),
        Wanted::Patch(patch) => {
            let scale = patch::applied(ctx, &place, patch, Some(old))?;
            (scale, patch.kind == patch::Kind::Apply)
        }
    };
    match_name(&scale, target)?;
    if !applied {
        let author = writer(ctx, &place, &ROW.gvk().api_version());
        apply::on_update(&ROW.types, ROW.ty, Some(old), &mut scale, &author.as_writer());
    }
    Ok(scale)
}

async fn set_replicas(
    ctx: &Ctx,
    target: &Target,
    paths: &Paths,
    scale: Value,
    seen: &Value,
) -> Result<crate::verbs::write::Written, StatusError> {
    let place = Target { subresource: String::new(), ..target.clone() };
    let stale = StatusError::stale(&target.resource.group_resource(), &target.name);
    let (version, path) = (object::resource_version(seen).to_owned(), paths.replicas.clone());
    let api_version = target.resource.gvk().api_version();
    let edit = move |value: &mut Value| {
        if version != object::resource_version(value) {
            return Err(stale.clone());
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
        map_mut(value, parent).insert(name.to_owned(), json!(number(&scale, "spec.replicas")));
        owners::to_object(value, &scale, &path, &api_version);
        Ok(())
    };
    update(ctx, &place, Change::Edit(Box::new(edit), Admission::Noted)).await
}

fn match_name(scale: &Value, target: &Target) -> Result<(), StatusError> {
    let name = object::name(scale);
    if name.is_empty() {
        let text = format!("the name of the object ({} based on URL) was undeterminable: name must be provided", target.name);
        return Err(StatusError::bad_request(text));
    }
    if name != target.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(StatusError::bad_request(text));
    }
    Ok(())
}

/// Upstream's `ValidateScale` and the preconditions a Scale can carry.
fn check(scale: &Value, target: &Target, current: &Value) -> Result<(), StatusError> {
    let namespace = str_at(scale, "metadata.namespace");
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(StatusError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    let uid = object::uid(scale);
    if !uid.is_empty() && uid != object::uid(current) {
        let why = uid_mismatch(&target.key(), uid, object::uid(current));
        return Err(StatusError::conflict(&target.resource.group_resource(), &target.name, &why));
    }
    let replicas = number(scale, "spec.replicas");
    // A custom resource is judged as a whole.
    if replicas < 0 && target.resource.custom.is_none() {
        let error = Error::invalid(&Path::new("spec.replicas"), &json!(replicas), "must be greater than or equal to 0");
        let kind = GroupKind { group: "autoscaling".into(), kind: "Scale".into() };
        return Err(StatusError::invalid(&kind, &target.name, &[error]));
    }
    Ok(())
}
