//! What is accepted is encoded into exactly one request that means the same, whatever the edits.
#![no_main]

use dataplane::proto::http1::{
    ForwardedMode, HeadLimits, Parsed, RequestEdits, Scan, SpanEdits, encode_request, parse_request,
    via_names,
};
use dataplane::proto::{Framing, RequestHead, Version, trace};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { request_line: 8192, header_block: 16384, header_fields: 100 };
/// A span of ours.
const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// For what we write: our own fields come on top.
const WIDE: HeadLimits = HeadLimits { request_line: 16384, header_block: 65536, header_fields: 256 };

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let mut head = RequestHead::default();
    let Ok(Parsed::Complete { .. }) = parse_request(&mut bytes, &mut Scan::default(), &LIMITS, &mut head)
    else {
        return;
    };
    let edits = RequestEdits {
        host: None,
        peer: Some([192, 0, 2, 1].into()),
        forwarded: [ForwardedMode::Replace, ForwardedMode::Append, ForwardedMode::Off]
            [usize::from(choice % 3)],
        trusted: choice & 4 != 0,
        scheme: "http",
        via: "node",
        copy: None,
        framing: head.framing,
        upgrade: head.upgrade_websocket && choice & 8 != 0,
        te_trailers: choice & 16 != 0,
        hidden_cookie: (choice & 32 != 0).then_some(b"a".as_slice()),
        span: (choice & 64 != 0).then_some(SpanEdits { parent: PARENT, goes_on: choice & 128 != 0 }),
    };
    let mut out = vec![0; 128 * 1024];
    let len = encode_request(&head, &bytes, &edits, &mut out).expect("the room is larger than any head");
    out.truncate(len);
    let mut again = RequestHead::default();
    let parsed = parse_request(&mut out, &mut Scan::default(), &WIDE, &mut again);
    if head.authority.is_empty() {
        return assert_eq!(head.version, Version::Http10);
    }
    assert_eq!(parsed, Ok(Parsed::Complete { len }), "{}", out.escape_ascii());
    assert_eq!(again.method_text.of(&out), head.method_text.of(&bytes));
    assert_eq!(again.authority.of(&out), head.authority.of(&bytes));
    assert_eq!(again.path.of(&out), head.path.of(&bytes));
    assert_eq!(again.query.map(|q| q.of(&out)), head.query.map(|q| q.of(&bytes)));
    let no_body = |f| matches!(f, Framing::None | Framing::Length(0));
    assert!(again.framing == head.framing || no_body(again.framing) && no_body(head.framing));
    assert!(via_names(&again, &out, "node"));
    if choice & 64 != 0 {
        let said = trace::of_head(&again, &out).map(|parent| parent.text());
        assert_eq!(said.as_ref().map(|text| &text[..]), Some(PARENT), "once, and ours");
    }
});
