//! The tree's own rules, as a test.

#[test]
fn tree_is_tidy() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let found = xtask::tidy::check(root).expect("tidy reads the tree");
    assert!(found.is_empty(), "{} untidy places:\n{}", found.len(), found.join("\n"));
}
