//! The whole control plane from a seed.
fn main() {}
