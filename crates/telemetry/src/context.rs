//! Trace contexts as W3C's `traceparent` carries them, and which requests are sampled. Pure: random bits come in.

use http::{HeaderMap, HeaderValue};

/// Where in which trace something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub sampled: bool,
}

impl Context {
    /// Of a request's headers; `None` where there is none, or a bad one.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get("traceparent")?.to_str().ok()?;
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let more = parts.next().is_some();
        if !lower(version, 2) || version == "ff" || version == "00" && more || !lower(trace, 32) || !lower(span, 16) || !lower(flags, 2) {
            return None;
        }
        let mut out = Self { trace: [0; 16], span: [0; 8], sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 };
        hex::decode_to_slice(trace, &mut out.trace).ok()?;
        hex::decode_to_slice(span, &mut out.span).ok()?;
        (out.trace != [0; 16] && out.span != [0; 8]).then_some(out)
    }

    /// For a request this one makes.
    pub fn header(&self) -> Option<HeaderValue> {
        let text = format!("00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), u8::from(self.sampled));
        HeaderValue::from_str(&text).ok()
    }
}

/// Upstream's `ParentBased(TraceIDRatioBased)`.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Trace IDs below this are sampled.
    below: u64,
}

impl Sampler {
    pub fn new(per_million: u32) -> Self {
        let share = f64::from(per_million) / 1e6;
        Self { below: (share * (1u64 << 63) as f64) as u64 }
    }

    /// The context of a new span: below its parent, or at the root of a trace of its own.
    pub fn begin(&self, parent: Option<Context>, trace: [u8; 16], span: [u8; 8]) -> Context {
        if let Some(parent) = parent {
            return Context { span, ..parent };
        }
        let low = u64::from_be_bytes([trace[8], trace[9], trace[10], trace[11], trace[12], trace[13], trace[14], trace[15]]) >> 1;
        Context { trace, span, sampled: low < self.below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Context> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", text.parse().unwrap());
        Context::of(&headers)
    }

    #[test]
    fn headers_are_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = of(text).unwrap();
        assert!(context.sampled);
        assert_eq!(context.header().unwrap(), text);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-é-b7ad6b7169203331-01",
        ] {
            assert_eq!(HeaderValue::from_str(bad).ok().and_then(|_| of(bad)), None, "{bad}");
        }
    }

    #[test]
    fn parents_decide_and_else_the_share_does() {
        let (none, all, half) = (Sampler::new(0), Sampler::new(1_000_000), Sampler::new(500_000));
        let parent = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert!(none.begin(parent, [1; 16], [2; 8]).sampled);
        assert_eq!(none.begin(parent, [1; 16], [2; 8]).trace, parent.unwrap().trace);
        assert!(!none.begin(None, [0; 16], [2; 8]).sampled && all.begin(None, [0xff; 16], [2; 8]).sampled);
        assert!(half.begin(None, [0x7f; 16], [2; 8]).sampled && !half.begin(None, [0x80; 16], [2; 8]).sampled);
    }
}
