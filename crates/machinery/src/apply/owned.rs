//! The fields of one owner: a set that is shared, not copied, for as long as nobody's ownership changes, with the JSON it is
//! written as. Most writes change values of fields their writer had already, so that neither the sets of others nor its own
//! change: copying, freeing and writing the trees of sets anew was a third of a status update's work. Used by [`super::managed`].

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::set::{self, Set};

/// Reads as the set it holds.
#[derive(Clone, Debug)]
pub(super) struct Owned(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    set: Set,
    json: OnceLock<Box<[u8]>>,
}

impl Clone for Shared {
    /// Only ever copied to be changed.
    fn clone(&self) -> Self {
        Self { set: self.set.clone(), json: OnceLock::new() }
    }
}

impl From<Set> for Owned {
    fn from(set: Set) -> Self {
        Self(Arc::new(Shared { set, json: OnceLock::new() }))
    }
}

impl Deref for Owned {
    type Target = Set;

    fn deref(&self) -> &Set {
        &self.0.set
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.set == other.0.set
    }
}

impl Owned {
    pub fn into_set(self) -> Set {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.set.clone(), |own| own.set)
    }

    /// The set, to be changed.
    pub fn make_mut(&mut self) -> &mut Set {
        let own = Arc::make_mut(&mut self.0);
        own.json.take();
        &mut own.set
    }

    /// Takes the members of `less` out.
    pub fn subtract(&mut self, less: &Set) {
        if set::intersects(self, less) {
            set::subtract(self.make_mut(), less);
        }
    }

    /// Makes it the union of both.
    pub fn add(&mut self, more: &Set) {
        if !set::is_subset(more, self) {
            set::add(self.make_mut(), more);
        }
    }

    /// As it is written.
    pub fn json(&self) -> &[u8] {
        // Writing a tree with string keys into memory cannot fail.
        self.0.json.get_or_init(|| serde_json::to_vec(&self.0.set).unwrap_or_else(|_| b"{}".to_vec()).into())
    }
}
