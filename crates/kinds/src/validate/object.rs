//! The whole validation of a write in upstream's order: metadata by the kind's rules, then the kind's own, then on update
//! the generic metadata rules again, as upstream's registry and strategies both call them.

use machinery::field::{ErrorList, Path};
use machinery::metadata;
use machinery::names::{self, Problems};
use serde_json::Value;

use crate::resource::{NameRule, Resource};
use crate::strategy::{Context, MetaRules, Strategy};

/// Errors of a new object, after defaults and `prepare_for_create`.
pub fn create(resource: &Resource, ctx: &Context, object: &Value) -> ErrorList {
    let first = resource.strategy.validate_first(object);
    if !first.is_empty() {
        return first;
    }
    let mut errors = if resource.strategy.meta_rules().own { ErrorList::new() } else { meta(resource, object) };
    errors.extend(resource.strategy.validate(ctx, object));
    errors
}

/// Errors of an update through the main resource, after `prepare_for_update`.
pub fn update(resource: &Resource, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
    update_with(resource, resource.strategy.as_ref(), ctx, new, old)
}

/// As [`update`], through a subresource with a strategy of its own.
pub fn update_with(resource: &Resource, strategy: &dyn Strategy, ctx: &Context, new: &Value, old: &Value) -> ErrorList {
    judge_update(resource, strategy, ctx, new, old).0
}

/// As [`update_with`], with what the client is warned of.
pub fn judge_update(resource: &Resource, strategy: &dyn Strategy, ctx: &Context, new: &Value, old: &Value) -> (ErrorList, Vec<String>) {
    let mut warnings = Vec::new();
    let first = strategy.validate_first(new);
    if !first.is_empty() {
        return (first, warnings);
    }
    let rules = strategy.meta_rules();
    let (path, null) = (Path::new("metadata"), Value::Null);
    let (new_meta, old_meta) = (new.get("metadata").unwrap_or(&null), old.get("metadata").unwrap_or(&null));
    let mut errors = metadata::validate_update(new_meta, old_meta, &path);
    if rules.update_again {
        errors.extend(errors.clone());
    }
    if rules.create_on_update {
        errors.extend(meta(resource, new));
    }
    errors.extend(strategy.judge_update(ctx, new, old, &mut warnings));
    (errors, warnings)
}

fn meta(resource: &Resource, object: &Value) -> ErrorList {
    let MetaRules { kube_finalizers, .. } = resource.strategy.meta_rules();
    let name = |name: &str, prefix: bool| name_problems(resource, object, name, prefix);
    let rules = metadata::Rules { namespaced: resource.namespaced, name: &name, kube_finalizers };
    metadata::validate(object.get("metadata").unwrap_or(&Value::Null), &rules, &Path::new("metadata"))
}

fn name_problems(resource: &Resource, object: &Value, name: &str, prefix: bool) -> Problems {
    let masked = if prefix { names::mask_trailing_dash(name) } else { name.into() };
    match resource.name_rule {
        NameRule::Dns1123Subdomain => names::dns1123_subdomain(&masked),
        NameRule::Dns1123Label => names::dns1123_label(&masked),
        NameRule::Dns1035Label => names::dns1035_label(&masked),
        NameRule::PathSegment => names::path_segment(name, prefix),
        NameRule::Declared if prefix => Problems::new(),
        NameRule::Declared => names::dns1123_subdomain(name).into_iter().map(|p| p.replace("253 characters", "253 bytes").into()).collect(),
        NameRule::ByStrategy => resource.strategy.name_problems(object, name, prefix),
    }
}
