//! What a CustomResourceDefinition must hold to: names, versions, conversion, columns, and above all its schemas. Upstream's
//! `ValidateCustomResourceDefinition` and what it calls, on the decoded tree.
//!
//! Called by the strategy of CustomResourceDefinitions. What custom resources must hold to is `machinery::structural`.

mod approval;
mod conversion;
mod costs;
mod defaults;
mod definition;
mod field_path;
mod go_json;
mod keywords;
pub mod rules;
mod spec;
mod structural;

pub use definition::{validate, validate_status_update, validate_update};
pub use field_path::{FieldPath, field_path};
pub use spec::unrecognized_formats;
