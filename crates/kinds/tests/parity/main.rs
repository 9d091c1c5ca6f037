//! The pure layers against recorded answers of upstream: decoding and its errors, managed fields, patches, protobuf.
//! The recordings are not part of the project: without them each test says so and passes.

mod decode;
mod recordings;
