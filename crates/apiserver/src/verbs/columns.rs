//! The column definitions of Tables, with the words that explain them. Upstream takes most from the fields the columns show. Not
//! here: cells.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use descriptions::Descriptions;
use kinds::Resource;
use kinds::resource::Column;
use serde_json::{Value, json};

/// What the metadata of a Table's first event or list says of its columns.
pub fn definitions(resource: &Resource) -> Value {
    let one =
        |c: &Column| json!({"name": c.name, "type": c.column_type, "format": c.format, "description": text(c), "priority": c.priority});
    if resource.columns.is_empty() {
        return plain().iter().map(one).collect();
    }
    resource.columns.iter().map(one).collect()
}

/// Of a kind without columns of its own.
fn plain() -> [Column; 2] {
    [("Name", "string", "name"), ("Created At", "date", "")].map(|(name, column_type, format)| {
        let mut column = Column { name: name.into(), column_type: column_type.into(), format: format.into(), ..Column::default() };
        column.describe_standard();
        column
    })
}

fn text(column: &Column) -> &str {
    if !column.description.is_empty() {
        return &column.description;
    }
    // All that any built-in column shows, read once: unpacking every description takes milliseconds.
    static WORDS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let all = Descriptions::unpack();
        let rows = kinds::table().resources().iter();
        let columns = rows.chain([&*crate::sub::scale::ROW]).flat_map(|r| r.columns.iter().cloned()).chain(plain());
        columns.filter_map(|c| Some((c.described_by.clone(), read(&all, &c.described_by)?))).collect()
    });
    words.get(&column.described_by).map_or("", String::as_str)
}

/// `type#field`, `type#field#sentences`
fn read(all: &Descriptions, of: &str) -> Option<String> {
    let mut parts = of.split('#');
    let text = all.of_field(parts.next()?, parts.next()?)?;
    let Some(count) = parts.next().and_then(|n| n.parse::<usize>().ok()) else { return Some(text.to_owned()) };
    let end = text.match_indices(". ").nth(count.checked_sub(1)?).map_or(text.len(), |(at, _)| at + 1);
    Some(text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_explains_a_column_exists() {
        let all = Descriptions::unpack();
        for row in kinds::table().resources() {
            for column in row.columns.iter().filter(|c| !c.described_by.is_empty()) {
                assert!(read(&all, &column.described_by).is_some_and(|t| !t.is_empty()), "{}: {}", row.gvr(), column.described_by);
            }
        }
        let role = read(&all, "io.k8s.api.rbac.v1.RoleBinding#roleRef#2").unwrap_or_default();
        assert!(role.ends_with("must return an error."), "{role}");
    }
}
