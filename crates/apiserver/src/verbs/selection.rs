//! Which objects of a collection a list, watch or deletecollection is about: label and field selectors, checked against what
//! the resource knows.

use kinds::Resource;
use machinery::status::StatusError;
use machinery::{fieldselector, labels};
use serde_json::Value;

#[derive(Clone)]
pub struct Selection {
    labels: labels::Selector,
    fields: fieldselector::Selector,
    /// Per term of `fields`, where its value is and what a missing one reads as.
    paths: Vec<(String, String)>,
    /// A collection narrowed to one object, as kubectl's single-object watch does.
    pub name: Option<String>,
}

impl Selection {
    pub fn parse(resource: &Resource, label_selector: &str, field_selector: &str) -> Result<Self, StatusError> {
        let labels = labels::parse(label_selector).map_err(StatusError::bad_request)?;
        let fields = fieldselector::parse(field_selector).map_err(StatusError::bad_request)?;
        let mut paths = Vec::new();
        for term in &fields.terms {
            let Some(known) = resource.selectable.iter().find(|s| s.label == term.field) else {
                return Err(StatusError::bad_request(resource.selector_rejection.replace("{field}", &term.field)));
            };
            paths.push((known.path.clone(), known.default.clone()));
        }
        let name = fields.requires_exact("metadata.name").map(str::to_owned);
        Ok(Self { labels, fields, paths, name })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let fields = self.fields.terms.iter().zip(&self.paths).all(|(term, (path, default))| {
            let value = value_at(object, path).unwrap_or_else(|| default.clone());
            (value == term.value) != term.negated
        });
        fields && self.labels.matches_object(object)
    }
}

fn value_at(object: &Value, path: &str) -> Option<String> {
    if path.is_empty() {
        return None;
    }
    match machinery::object::at(object, path)? {
        Value::String(s) if s.is_empty() => None,
        Value::String(s) => Some(s.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}
