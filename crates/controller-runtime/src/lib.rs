//! Informers to work queues to reconcile to actions.
