//! Kubernetes API machinery: names, field errors, statuses, quantities, selectors, schemas, patches.
//!
//! Everything here is pure: no clock, no randomness, no sockets, no files. It knows no resource by name;
//! `kinds` holds the table of those, `apiserver` the verbs.

pub mod defaults;
pub mod field;
pub mod gvk;
pub mod object;
pub mod schema;
pub mod status;
