//! Developer tasks as a library, so that `tidy` can run as a test.

pub mod breakages;
pub mod conformance;
pub mod facts;
pub mod named;
pub mod tidy;
