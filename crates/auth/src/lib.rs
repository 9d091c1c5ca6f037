//! Who may do what: RBAC and Node authorizer decisions, identities. Pure.
