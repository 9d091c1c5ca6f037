//! Query parameters of verbs: `ListOptions`, `CreateOptions` and their kin.

use machinery::field::{self, Path};
use machinery::gvk::GroupKind;
use machinery::status::StatusError;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::http::Query;
use crate::verbs::write::patch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What a write was asked to do besides writing.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub manager: String,
    pub validation: FieldValidation,
    pub force: bool,
    pub given: Given,
}

/// The options as the client wrote them, for plugins and webhooks.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions`; empty for the server's own writes.
    pub kind: &'static str,
    pub manager: String,
    pub validation: String,
    /// Whether `force` was said at all.
    pub force: bool,
}

impl WriteOptions {
    /// `kind`: `CreateOptions`, `UpdateOptions` or `PatchOptions`, for errors.
    pub fn parse(call: &Call, kind: &'static str) -> Result<Self, StatusError> {
        let query = &call.query;
        let dry_run: Vec<String> = query.all("dryRun").map(str::to_owned).collect();
        let mut errors = if kind == "PatchOptions" { patch_errors(patch::kind_of(&call.headers), query) } else { Vec::new() };
        errors.extend(dry_run_errors(&dry_run));
        let mut validation = FieldValidation::Warn;
        match query.text("fieldValidation") {
            "" | "Warn" => {}
            "Strict" => validation = FieldValidation::Strict,
            "Ignore" => validation = FieldValidation::Ignore,
            other => {
                let known = ["", "Ignore", "Strict", "Warn"];
                errors.push(field::Error::not_supported(&Path::new("fieldValidation"), &Value::from(other), &known));
            }
        }
        let given = query.text("fieldManager");
        machinery::metadata::field_manager(given, &Path::new("fieldManager"), &mut errors);
        if !errors.is_empty() {
            let kind = GroupKind { group: "meta.k8s.io".to_owned(), kind: kind.to_owned() };
            return Err(StatusError::invalid(&kind, "", &errors));
        }
        let given_options =
            Given { kind, manager: given.to_owned(), validation: query.text("fieldValidation").to_owned(), force: query.has("force") };
        let manager = if given.is_empty() { default_manager(call.user_agent()) } else { given.to_owned() };
        Ok(Self { dry_run: !dry_run.is_empty(), manager, validation, force: query.flag("force"), given: given_options })
    }
}

/// What server-side apply must say and no other patch may.
fn patch_errors(kind: Option<patch::Kind>, query: &Query) -> Vec<field::Error> {
    match kind {
        Some(patch::Kind::Apply) if query.text("fieldManager").is_empty() => {
            vec![field::Error::required(&Path::new("fieldManager"), "is required for apply patch")]
        }
        Some(patch::Kind::Json | patch::Kind::Merge | patch::Kind::Strategic) if query.get("force").is_some() => {
            vec![field::Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch")]
        }
        _ => Vec::new(),
    }
}

pub fn dry_run_errors(values: &[String]) -> Vec<field::Error> {
    if values.iter().all(|v| v == "All") {
        return Vec::new();
    }
    vec![field::Error::not_supported(&Path::new("dryRun"), &json!(values), &["All"])]
}

/// Upstream's `managerOrUserAgent`: the user agent up to the slash.
fn default_manager(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or("");
    let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Lists and watches.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: usize,
    pub continue_token: String,
    pub resource_version: String,
    pub resource_version_match: String,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub fn parse(query: &Query) -> Result<Self, StatusError> {
        let number = |key: &str| -> Result<Option<i64>, StatusError> {
            let text = query.text(key);
            if text.is_empty() {
                return Ok(None);
            }
            text.parse::<i64>()
                .map(Some)
                .map_err(|_| StatusError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
        };
        let limit = number("limit")?.unwrap_or(0);
        let timeout = number("timeoutSeconds")?;
        Ok(Self {
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.text("continue").to_owned(),
            resource_version: query.text("resourceVersion").to_owned(),
            resource_version_match: query.text("resourceVersionMatch").to_owned(),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
            timeout_seconds: timeout.and_then(|t| u64::try_from(t).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apply_names_its_manager_and_only_apply_may_force() {
        let texts =
            |kind, query: &str| -> Vec<String> { patch_errors(kind, &Query::parse(query)).iter().map(ToString::to_string).collect() };
        assert_eq!(texts(Some(patch::Kind::Apply), ""), ["fieldManager: Required value: is required for apply patch"]);
        assert!(texts(Some(patch::Kind::Apply), "fieldManager=m&force=true").is_empty());
        assert_eq!(texts(Some(patch::Kind::Merge), "force=false"), ["force: Forbidden: may not be specified for non-apply patch"]);
        assert!(texts(Some(patch::Kind::Json), "").is_empty());
    }
}
