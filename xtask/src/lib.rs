//! Developer tasks as a library, so that `tidy` can run as a test.

pub mod facts;
pub mod tidy;
