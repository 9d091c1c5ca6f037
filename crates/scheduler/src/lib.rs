//! kube-scheduler: the shell around scheduling.
