//! Two ways of naming the place of a value: [`Trail`], as strict errors and OpenAPI validation spell it, and [`Place`], a field
//! path that may be nothing at all.

use crate::field::Path;

/// The way to a value: fields and keys alike with dots. It lies on the stack.
#[derive(Clone, Copy, Default)]
pub(super) struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    step: Option<Step<'a>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    /// As a key, with a dot even where nothing is before it.
    Entry(&'a str),
    Index(usize),
}

impl<'a> Trail<'a> {
    pub fn key(&'a self, name: &'a str) -> Trail<'a> {
        Trail { parent: Some(self), step: Some(Step::Key(name)) }
    }

    pub fn entry(&'a self, name: &'a str) -> Trail<'a> {
        Trail { parent: Some(self), step: Some(Step::Entry(name)) }
    }

    pub fn index(&'a self, index: usize) -> Trail<'a> {
        Trail { parent: Some(self), step: Some(Step::Index(index)) }
    }

    pub fn is_root(&self) -> bool {
        self.step.is_none()
    }
}

impl std::fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Some(Step::Key(name)) if self.parent.is_none_or(Trail::is_root) => f.write_str(name),
            Some(Step::Key(name) | Step::Entry(name)) => write!(f, ".{name}"),
            Some(Step::Index(index)) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

/// A field path, or none: errors of a custom resource as a whole are at `<nil>`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a>(Option<Path<'a>>);

impl<'a> Place<'a> {
    pub const fn root() -> Self {
        Self(None)
    }

    pub const fn at(path: Path<'a>) -> Self {
        Self(Some(path))
    }

    pub fn child(&'a self, name: &'a str) -> Place<'a> {
        Self(Some(self.0.as_ref().map_or_else(|| Path::new(name), |p| p.child(name))))
    }

    /// An entry of a map. Directly below nothing it has no brackets to stand in.
    pub fn key(&'a self, key: &'a str) -> Place<'a> {
        Self(Some(self.0.as_ref().map_or_else(|| Path::new(key), |p| p.key(key))))
    }

    pub fn index(&'a self, index: usize) -> Place<'a> {
        const NOWHERE: Path<'static> = Path::new("");
        Self(Some(self.0.as_ref().map_or_else(|| NOWHERE.index(index), |p| p.index(index))))
    }

    /// The path as a field of an error.
    pub fn text(&self) -> String {
        self.0.as_ref().map_or_else(|| "<nil>".to_owned(), Path::to_string)
    }

    /// Makes something of the path.
    pub fn with<T>(&self, make: impl FnOnce(&Path<'_>) -> T) -> T {
        make(&self.0.unwrap_or(Path::new("<nil>")))
    }
}
