//! The Container Runtime Interface v1: messages, client and server.
