//! kube::Client over an in-process service or HTTPS; shared informers.
