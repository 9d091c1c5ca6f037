//! Lists and maps by what they are made of: trees, owned values, prepared fields.

use serde_json::Value as Json;

use crate::json;
use crate::types::{ListSemantics, ObjectType};
use crate::value::{Key, List, Map, Value};

static ATOMIC: ListSemantics = ListSemantics::Atomic;

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json { items, .. } => items.len(),
            Self::Owned(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Json { items, elem, .. } => items.get(at).map(|item| json::read(item, elem)),
            Self::Owned(items) => items.get(at).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(crate) fn semantics(&self) -> &ListSemantics {
        match self {
            Self::Json { semantics, .. } => semantics,
            Self::Owned(_) => &ATOMIC,
        }
    }
}

/// The property an object's key stands for; null ones are absent.
fn property<'a>(entries: &'a serde_json::Map<String, Json>, of: &'a ObjectType, name: &str) -> Option<Value<'a>> {
    let field = of.fields.get(name)?;
    let value = entries.get(&field.json).filter(|v| !v.is_null())?;
    Some(json::read(value, &field.of))
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json { entries, .. } => entries.len(),
            Self::Object { .. } => self.keys().count(),
            Self::Owned(entries) => entries.len(),
            Self::Prepared(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prepared fields are the evaluator's business: they cost.
    pub fn get(&self, key: &Key) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json { entries, value }, Key::String(name)) => entries.get(&**name).map(|v| json::read(v, value)),
            (Self::Object { entries, of }, Key::String(name)) => property(entries, of, name),
            (Self::Owned(entries), key) => entries.get(key).cloned(),
            _ => None,
        }
    }

    pub(crate) fn get_str(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json { entries, value } => entries.get(name).map(|v| json::read(v, value)),
            Self::Object { entries, of } => property(entries, of, name),
            Self::Owned(entries) => entries.get(&Key::str(name)).cloned(),
            Self::Prepared(_) => None,
        }
    }

    pub fn keys(&self) -> Box<dyn Iterator<Item = Key> + '_> {
        match self {
            Self::Json { entries, .. } => Box::new(entries.keys().map(|k| Key::str(k))),
            Self::Object { entries, of } => Box::new(of.fields.iter().filter_map(|(name, field)| {
                let there = entries.get(&field.json).is_some_and(|v| !v.is_null());
                there.then(|| Key::str(name))
            })),
            Self::Owned(entries) => Box::new(entries.keys().cloned()),
            Self::Prepared(_) => Box::new(std::iter::empty()),
        }
    }
}
