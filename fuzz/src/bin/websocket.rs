//! Frames and channel messages of an exec or attach over WebSocket; the first byte chooses the protocol.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((first, said)) = bytes.split_first() {
        runtime::fuzzing::websocket(said, *first);
    }
});
