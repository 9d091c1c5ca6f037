//! HTTP/1.1 and HTTP/2 of somebody unknown, up to the refusal: a whole server hears it. With the first byte odd the rest
//! comes after HTTP/2's preface.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, said)) = bytes.split_first() else { return };
    if first & 1 == 1 {
        let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        apiserver::fuzzing::http(&[preface, said].concat());
    } else {
        apiserver::fuzzing::http(said);
    }
});
