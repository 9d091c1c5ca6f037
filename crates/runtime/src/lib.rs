//! A CRI server: images, snapshots, sandboxes, containers, streams.
