//! What a kind does beyond its facts. Upstream's `rest.RESTCreateStrategy` and `RESTUpdateStrategy`, on trees.
//!
//! The generic verbs call, on create: `default`, `prepare_for_create`, `validate`, `warnings`; on update: `default`,
//! `prepare_for_update`, `validate_update`, `warnings`. Subresources that write (`status`, `resize`, ...) have a strategy of
//! their own, whose update half alone is called. Generic metadata rules are not here: `machinery` validates those.

use machinery::field::ErrorList;
use serde_json::Value;

/// What a strategy may know of the request. No clock, no randomness: they come in here.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The version in which the object is seen: `v1`.
    pub version: String,
    /// RFC 3339, seconds.
    pub now: String,
    /// Who asks; empty inside the server.
    pub user: String,
    /// The rest of who asks, for the few kinds that write it down.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
    /// The object's namespace is labelled for administrative access to devices.
    pub admin_access: bool,
}

/// How a kind's strategy calls the shared metadata rules.
#[derive(Clone, Copy, Debug)]
pub struct MetaRules {
    /// Finalizers without a domain must be standard ones.
    pub kube_finalizers: bool,
    /// The strategy's update validation repeats the update rules of metadata.
    pub update_again: bool,
    /// The strategy's update validation also runs the create rules of metadata.
    pub create_on_update: bool,
    /// The strategy's `validate` judges metadata itself, among its own rules.
    pub own: bool,
}

impl Default for MetaRules {
    fn default() -> Self {
        Self { kube_finalizers: true, update_again: true, create_on_update: false, own: false }
    }
}

/// The behaviour of one kind. Every method has the plain default: a kind without rules implements nothing.
pub trait Strategy: Send + Sync {
    /// Defaults that depend on other fields. Those that are plain values are in the facts table and already applied.
    fn default(&self, _ctx: &Context, _object: &mut Value) {}

    /// Whether a new object, as it is read, has defaults that upstream does not store with it but with its first update.
    fn is_defaulted_when_read(&self, _object: &Value) -> bool {
        false
    }

    /// Drops what a creator may not set (status), sets what the server owns.
    fn prepare_for_create(&self, _ctx: &Context, _object: &mut Value) {}

    /// Which metadata rules apply; `kinds::validate` runs them around the methods below.
    fn meta_rules(&self) -> MetaRules {
        MetaRules::default()
    }

    /// Whether `generateName` gets a suffix.
    fn suffixes_names(&self) -> bool {
        true
    }

    /// What is wrong with a name, for kinds whose row says [`crate::resource::NameRule::ByStrategy`].
    fn name_problems(&self, _object: &Value, name: &str, _prefix: bool) -> machinery::names::Problems {
        machinery::names::dns1123_subdomain(name)
    }

    fn validate(&self, _ctx: &Context, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// What upstream asks before all other validation, on create and update; its errors come alone.
    fn validate_first(&self, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Restores what this endpoint may not change.
    fn prepare_for_update(&self, _ctx: &Context, _new: &mut Value, _old: &Value) {}

    /// Only what the update adds to `validate`; upstream kinds differ in whether they call both, so this calls what it needs.
    fn validate_update(&self, ctx: &Context, new: &Value, _old: &Value) -> ErrorList {
        self.validate(ctx, new)
    }

    /// [`Strategy::validate_update`] where judging itself finds what to warn of.
    fn judge_update(&self, ctx: &Context, new: &Value, old: &Value, _warnings: &mut Vec<String>) -> ErrorList {
        self.validate_update(ctx, new, old)
    }

    /// Texts for `Warning: 299` headers; `old` is there on update.
    fn warnings(&self, _ctx: &Context, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The strategy of a subresource that updates the stored object, `None` where it has none.
    fn subresource(&self, _name: &str) -> Option<&dyn Strategy> {
        None
    }

    /// The cells of the object's Table row in the order of the columns. `now` is seconds since the epoch, for ages.
    /// `None`: name and age.
    fn cells(&self, _object: &Value, _now: i64) -> Option<Vec<Value>> {
        None
    }
}

/// A kind without rules of its own.
pub struct Plain;

impl Strategy for Plain {}
