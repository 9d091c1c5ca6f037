//! Developer tasks: `cargo run -p xtask -- facts|tidy`.
fn main() {}
