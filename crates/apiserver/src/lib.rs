//! kube-apiserver.

pub mod cache;
