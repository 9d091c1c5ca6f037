//! The only crate that may use unsafe: forks, namespaces, ioctls.
