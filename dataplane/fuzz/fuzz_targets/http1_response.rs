//! Responses: no bytes panic, no cut matters, and what is accepted is encoded into a head that parses to the same.
#![no_main]

use dataplane::fault::Refusal;
use dataplane::proto::http1::{Parsed, ResponseEdits, Scan, encode_response, parse_response};
use dataplane::proto::{Framing, Method, ResponseHead, Version};
use libfuzzer_sys::fuzz_target;

fn parse(bytes: &[u8], method: Method, step: usize) -> (Result<Parsed, Refusal>, ResponseHead) {
    let (mut scan, mut head) = (Scan::default(), ResponseHead::default());
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        let parsed = parse_response(&bytes[..end], &mut scan, method, &mut head);
        if parsed != Ok(Parsed::Partial) || end == bytes.len() {
            return (parsed, head);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let method = if first.is_multiple_of(2) { Method::Get } else { Method::Head };
    let (whole, head) = parse(bytes, method, bytes.len().max(1));
    for step in [1, 7] {
        let (cut, other) = parse(bytes, method, step);
        assert_eq!(cut, whole, "in steps of {step}");
        if matches!(whole, Ok(Parsed::Complete { .. })) {
            assert_eq!(other.fields, head.fields);
        }
    }
    let Ok(Parsed::Complete { .. }) = whole else { return };
    let edits = ResponseEdits {
        version: Version::Http11,
        framing: head.framing,
        close: head.framing == Framing::UntilClose,
        keep_alive_10: false,
        upgrade: head.upgrade_websocket,
        via: "node",
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
        sticky: None,
    };
    let mut out = vec![0; 128 * 1024];
    let len = encode_response(&head, bytes, &edits, &mut out).expect("the room is larger than any head");
    let (parsed, again) = parse(&out[..len], method, len);
    // Our own fields may push a head over the bound for an origin's.
    if parsed != Err(Refusal::ResponseHeaderTooLarge) {
        assert_eq!(parsed, Ok(Parsed::Complete { len }));
        assert_eq!((again.status, again.framing), (head.status, head.framing));
        assert_eq!(again.upgrade_websocket, head.upgrade_websocket);
    }
});
