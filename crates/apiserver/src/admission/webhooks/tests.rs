//! Webhooks of every kind of behaviour, against a running API server.
