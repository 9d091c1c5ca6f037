//! kubelet: the shell around podsync.
