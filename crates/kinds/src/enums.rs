//! The published enums of fields (`facts/enums.tsv`), for OpenAPI documents. Validation has its own rules and does not read these.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::types::full_name;

type Enums = BTreeMap<(String, &'static str), Vec<&'static str>>;

static ENUMS: LazyLock<Enums> = LazyLock::new(|| {
    let lines = include_str!("../facts/enums.tsv").lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut cells = line.split('\t');
            let (definition, field, values) = (cells.next()?, cells.next()?, cells.next()?);
            let values = values.split('|').collect();
            Some(((full_name(definition), field), values))
        })
        .collect()
});

/// The values of a definition's field, sorted; `None` where it takes any.
pub fn of(definition: &str, field: &str) -> Option<&'static [&'static str]> {
    ENUMS
        .range((definition.to_owned(), "")..)
        .take_while(|((d, _), _)| d == definition)
        .find(|((_, f), _)| *f == field)
        .map(|(_, v)| v.as_slice())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_have_their_values() {
        assert_eq!(super::of("io.k8s.api.core.v1.Container", "imagePullPolicy"), Some(&["Always", "IfNotPresent", "Never"][..]));
        assert_eq!(super::of("io.k8s.api.core.v1.Container", "image"), None);
        for (definition, field) in super::ENUMS.keys() {
            let ty = crate::types().named(definition).map(|id| crate::types().get(id));
            let known = ty.and_then(|t| t.as_struct()).is_some_and(|s| s.field(field).is_some());
            assert!(known, "{definition} {field}");
        }
    }
}
