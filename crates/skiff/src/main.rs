//! The skiff binary: the composition root. Only wiring and command lines live here.
fn main() {}
