//! An object that is being changed: its tree, and apart from it the managers of its fields, which most writes neither read nor
//! change. Made and used by the loop of `update`, kept by `decoded`.
//!
//! Who is to see the object as clients do (webhooks, policies, answers that are not the stored bytes) gets it whole.

use std::borrow::Cow;

use kinds::Resource;
use machinery::apply::Managers;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Without `metadata.managedFields` where those are apart.
    pub tree: Value,
    /// `None`: they are in the tree.
    pub managers: Option<Managers>,
}

impl Object {
    /// With all that it has in the tree.
    pub fn whole(tree: Value) -> Self {
        Self { tree, managers: None }
    }

    /// Takes the managers out, if they are written as we write them.
    pub fn apart(resource: &Resource, mut tree: Value) -> Self {
        let managers = Managers::take_from(&resource.types, resource.ty, &mut tree);
        Self { tree, managers }
    }

    /// The object as clients see it.
    pub fn to_value(&self) -> Cow<'_, Value> {
        match &self.managers {
            Some(managers) if !managers.is_empty() => {
                let mut tree = self.tree.clone();
                managers.put_into(&mut tree);
                Cow::Owned(tree)
            }
            _ => Cow::Borrowed(&self.tree),
        }
    }

    pub fn into_value(mut self) -> Value {
        if let Some(managers) = self.managers {
            managers.put_into(&mut self.tree);
        }
        self.tree
    }
}
