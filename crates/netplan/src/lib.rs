//! The rules, routes and answers a node must have. Pure.
