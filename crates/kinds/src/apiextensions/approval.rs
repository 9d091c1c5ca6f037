//! Groups of the Kubernetes community belong to it: a definition in one says by an annotation that it was approved.

use serde_json::Value;

use super::spec::Spec;
use crate::validate::tree::s;
use crate::validate::{Error, ErrorList, Path};

const APPROVED: &str = "api-approved.kubernetes.io";

#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Given,
    Invalid,
}

fn approval_of(object: &Value) -> (Approval, &str) {
    let annotation = object.pointer("/metadata/annotations").map_or("", |all| s(all, APPROVED));
    let host =
        annotation.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let state = if annotation.is_empty() {
        Approval::Missing
    } else if annotation.starts_with("unapproved") || !host.is_empty() {
        Approval::Given
    } else {
        Approval::Invalid
    };
    (state, annotation)
}

/// Groups of the community need its consent, or a word that there is none.
pub fn approval(object: &Value, old: Option<&Value>, e: &mut ErrorList) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = s(Spec::of(object).tree, "group");
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|d| group.strip_suffix(d).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let (state, annotation) = approval_of(object);
    if !protected || old.is_some_and(|old| approval_of(old).0 == state) {
        return;
    }
    let (at, must) = (Path::new("metadata"), format!("protected groups must have approval annotation \"{APPROVED}\""));
    let at = at.child("annotations");
    let at = at.key(APPROVED);
    match state {
        Approval::Missing => e.push(Error::required(&at, format!("{must}, {SEE}"))),
        Approval::Invalid => {
            let text = format!("{must} with either a URL or a reason starting with \"unapproved\", {SEE}");
            e.push(Error::invalid_str(&at, annotation, text));
        }
        Approval::Given => {}
    }
}
