//! One file per command a person types.

pub mod datastore;
pub mod doctor;
pub mod down;
pub mod image;
pub mod migrate;
pub mod node;
pub mod status;
pub mod up;
