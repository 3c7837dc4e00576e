//! Requests: no bytes panic, and the outcome of a head does not depend on how it was cut.
#![no_main]

use dataplane::fault::Refusal;
use dataplane::proto::RequestHead;
use dataplane::proto::http1::{HeadLimits, Parsed, Scan, parse_request};
use libfuzzer_sys::fuzz_target;

/// Small, so that the fuzzer meets the limits too.
const LIMITS: HeadLimits = HeadLimits { request_line: 256, header_block: 512, header_fields: 8 };

type Outcome = (Result<Parsed, Refusal>, RequestHead, Vec<u8>);

fn parse(bytes: &[u8], step: usize) -> Outcome {
    let mut bytes = bytes.to_vec();
    let (mut scan, mut head) = (Scan::default(), RequestHead::default());
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        let parsed = parse_request(&mut bytes[..end], &mut scan, &LIMITS, &mut head);
        if parsed != Ok(Parsed::Partial) || end == bytes.len() {
            return (parsed, head, bytes);
        }
        assert!(scan.examined() + 1 >= end, "a partial head is examined to its end, but for a last CR");
    }
}

fuzz_target!(|data: &[u8]| {
    let (whole, head, bytes) = parse(data, data.len().max(1));
    for step in [1, 7] {
        let (cut, other, other_bytes) = parse(data, step);
        assert_eq!(cut, whole, "in steps of {step}");
        if let Ok(Parsed::Complete { len }) = whole {
            assert_eq!(other.fields, head.fields);
            assert_eq!(other_bytes[..len], bytes[..len]);
        }
    }
    if let Ok(Parsed::Complete { len }) = whole {
        assert!(len <= data.len());
        assert!(head.path.of(&bytes).starts_with(b"/") || head.path.of(&bytes) == b"*");
        for field in &head.fields {
            assert!((field.value.start + field.value.len) as usize <= len);
            assert!(!field.value.of(&bytes).iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
    }
});
