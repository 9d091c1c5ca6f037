//! The whole surface of discovery, line by line, against a list extracted from upstream's own answers.

use std::collections::BTreeSet;

fn lines() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for row in kinds::table().resources() {
        let gv = if row.group.is_empty() { row.version.clone() } else { format!("{}/{}", row.group, row.version) };
        let scope = if row.namespaced { "namespaced" } else { "cluster" };
        let cells = [
            gv.as_str(),
            &row.resource,
            &row.kind,
            scope,
            &row.verbs.join(","),
            &row.short_names.join(","),
            &row.categories.join(","),
            &row.singular,
        ];
        out.insert(cells.join("\t"));
        for sub in &row.subresources {
            let own = (sub.kind.group.as_str(), sub.kind.version.as_str()) == (row.group.as_str(), row.version.as_str());
            let kind = if own { sub.kind.kind.clone() } else { format!("{}/{}", sub.kind.group_version(), sub.kind.kind) };
            let name = format!("{}/{}", row.resource, sub.name);
            out.insert([gv.as_str(), &name, &kind, scope, &sub.verbs.join(","), "", "", ""].join("\t"));
        }
    }
    out
}

#[test]
fn the_surface_is_upstreams() {
    let wanted: BTreeSet<String> = include_str!("surface.tsv").lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
    let got = lines();
    let missing: Vec<&String> = wanted.difference(&got).collect();
    let surplus: Vec<&String> = got.difference(&wanted).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nsurplus: {surplus:#?}");
    assert!(wanted.len() > 100, "{} lines", wanted.len());
}
