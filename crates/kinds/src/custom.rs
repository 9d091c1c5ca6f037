//! What only a row made at run time has: facts of the custom resource definition it comes from. The rest of such a row is as
//! any other's.

/// Of a custom resource in one version.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// The name of its definition: `widgets.example.com`.
    pub definition: String,
    /// What every request for this version is warned of.
    pub deprecation: Option<String>,
    /// Where its objects have what a Scale shows, if they have a `scale` subresource.
    pub scale: Option<ScalePaths>,
}

/// JSONPaths of the definition: `.spec.replicas`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Empty where there is none.
    pub label_selector: String,
}
