//! Shared pieces of validation: how trees are read, rules many kinds use, and how values are printed in errors. Rules of one
//! kind are with its strategy. Called by `strategies`; the API server calls [`create`] and [`update`].

pub mod admission;
pub mod affinity;
pub mod conditions;
pub mod container;
pub mod devices;
mod diff;
pub mod equal;
pub mod go;
mod os;
pub mod pem;
pub mod pod_spec;
pub mod probes;
pub mod resources;
pub mod rules;
pub mod scheduling;
pub mod security;
pub mod selector;
pub mod template;
pub mod tree;
pub mod volume;

mod object;

pub use object::{create, judge_update, update, update_with};

pub use machinery::field::{Error, ErrorList, Path};
