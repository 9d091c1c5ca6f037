//! The pure layers against recorded answers of upstream: decoding and its errors, managed fields, patches, protobuf.
//! The recordings are not part of the project: without them each test says so and passes.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that reads recordings")]

mod decode;
mod proto;
mod recordings;
mod writes;
mod yaml;
