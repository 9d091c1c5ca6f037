//! The table of built-in resources: names, scope, verbs, subresources, schema facts, printer columns, selectable fields, and
//! per kind one file with its strategy. A custom resource is a row of the same type, made at run time.
//!
//! Pure. `apiserver` runs its generic verbs over these rows; nothing else lists kinds by name.

pub mod apiextensions;
pub mod columns;
pub mod custom;
pub mod enums;
pub mod expressions;
pub mod limits;
pub mod podsecurity;
pub mod quota;
pub mod resource;
pub mod strategies;
pub mod strategy;
pub mod table;
pub mod type_checking;
pub mod types;
pub mod validate;
pub mod warnings;

pub use custom::Custom;
pub use resource::{Resource, Subresource};
pub use strategy::{Context, Strategy};
pub use table::{Table, table};
pub use types::{shared_types, types};
