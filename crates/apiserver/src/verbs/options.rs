//! Query parameters of verbs: `ListOptions`, `CreateOptions` and their kin.

use machinery::field::{self, Path};
use machinery::gvk::GroupKind;
use machinery::status::StatusError;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::http::Query;

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
}

impl WriteOptions {
    /// `kind`: `CreateOptions`, `UpdateOptions` or `PatchOptions`, for errors.
    pub fn parse(call: &Call, kind: &str) -> Result<Self, StatusError> {
        let query = &call.query;
        let dry_run: Vec<String> = query.all("dryRun").map(str::to_owned).collect();
        let mut errors = dry_run_errors(&dry_run);
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
        let manager = if given.is_empty() { default_manager(call.user_agent()) } else { given.to_owned() };
        Ok(Self { dry_run: !dry_run.is_empty(), manager, validation, force: query.flag("force") })
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
