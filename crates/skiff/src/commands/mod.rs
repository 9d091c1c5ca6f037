//! One file per command a person types; `progress` is shared by those that take long.

pub mod datastore;
pub mod doctor;
pub mod down;
pub mod image;
pub mod migrate;
pub mod node;
pub mod progress;
pub mod status;
pub mod up;
