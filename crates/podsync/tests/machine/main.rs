//! `Machine` against a runtime in memory: whole lives of pods, and laws over random histories.

#![expect(clippy::unwrap_used, reason = "tests")]

mod lifecycle;
mod properties;
mod world;
