//! What only a row made at run time has: facts of the custom resource definition it comes from. The rest of such a row is as
//! any other's.

/// Of a custom resource in one version.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// The name of its definition: `widgets.example.com`.
    pub definition: String,
    /// What every request for this version is warned of.
    pub deprecation: Option<String>,
}
