//! Quantities, durations and times: what is printed is read as the same.
#![no_main]
use machinery::quantity::Quantity;
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(quantity) = Quantity::parse(text) {
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).expect("a canonical quantity is one");
        // Beyond 2^63 the number of digits decides whether a text is capped, as upstream has it.
        if quantity.value().unsigned_abs() < i64::MAX as u64 {
            assert_eq!(again, quantity, "{text} {shown}");
            assert_eq!(again.to_string(), shown);
        }
    }
    if let Ok(nanos) = machinery::duration::parse(text) {
        assert_eq!(machinery::duration::parse(&machinery::duration::format(nanos)), Ok(nanos));
    }
    drop(machinery::gotime::parse_rfc3339(text));
    drop(machinery::gotime::parse_micros(text));
});
