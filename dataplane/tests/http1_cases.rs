//! Every case of `cases/*.txt`, in one piece, byte by byte and cut at each place: the outcome must be the one written
//! there, always. What was accepted is encoded and parsed again: it must be one request, and mean the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod cases;

use cases::{Case, cases};
use dataplane::fault::Refusal;
use dataplane::proto::http1::{
    BodyDecoder, ForwardedMode, HeadLimits, Parsed, RequestEdits, ResponseEdits, Scan, encode_request,
    encode_response, parse_request, parse_response, via_names,
};
use dataplane::proto::{Framing, Method, RequestHead, ResponseHead, Version};
use std::fmt::Write;

const LIMITS: HeadLimits = HeadLimits { request_line: 8192, header_block: 16384, header_fields: 100 };
const NODE: &str = "node";

/// Everything that was cut, in order: whole, byte by byte, and in two at each place (a sample of them if it is long).
fn cuts(len: usize) -> Vec<Vec<usize>> {
    let mut cuts = vec![vec![], (1..len).collect()];
    let sampled = |at: &usize| {
        len < 3000 || *at < 150 || len - at < 150 || at.is_multiple_of(997) || at.abs_diff(8208) < 8
    };
    cuts.extend((1..len).filter(sampled).map(|at| vec![at]));
    cuts
}

// === requests

/// What a connection would do with `sent`, cut at `at`: one line for each outcome; and the first head sent upstream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    lines: Vec<String>,
    upstream: Option<Vec<u8>>,
}

fn refused(refusal: Refusal, then: &str) -> String {
    format!("{} {} {then}", refusal.status(), refusal.name())
}

fn framing_text(framing: Framing) -> String {
    match framing {
        Framing::None => "none".to_owned(),
        Framing::Length(length) => format!("length:{length}"),
        Framing::Chunked => "chunked".to_owned(),
        Framing::UntilClose => "close".to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"").replace(' ', "\\x20")
}

fn or_dash(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".to_owned() } else { text(bytes) }
}

fn edits(head: &RequestHead) -> RequestEdits<'static> {
    RequestEdits {
        host: None,
        peer: Some([192, 0, 2, 1].into()),
        forwarded: ForwardedMode::Replace,
        trusted: false,
        scheme: "http",
        via: NODE,
        copy: None,
        framing: head.framing,
        upgrade: head.upgrade_websocket,
        te_trailers: false,
        hidden_cookie: None,
        span: None,
    }
}

/// The reader of one connection: a head, then its body, over and over.
#[derive(Debug, Default)]
struct Requests {
    outcome: Outcome,
    held: Vec<u8>,
    scan: Scan,
    head: RequestHead,
    body: Option<BodyDecoder>,
    closed: bool,
}

impl Requests {
    fn take(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
        while !self.closed && self.step() {}
    }

    /// One head or one piece of body; false when more bytes are needed.
    fn step(&mut self) -> bool {
        if let Some(body) = &mut self.body {
            match body.decode(&mut self.held, None) {
                Ok(step) => {
                    let data = text(&self.held[..step.data]);
                    self.outcome.lines.last_mut().unwrap().push_str(&data);
                    self.held.drain(..step.consumed);
                    if step.end {
                        self.body = None;
                        self.closed = !self.head.keep_alive;
                    }
                    return step.end;
                }
                Err(refusal) => return self.close(refused(refusal, "close")),
            }
        }
        match parse_request(&mut self.held, &mut self.scan, &LIMITS, &mut self.head) {
            Ok(Parsed::Partial) => false,
            Err(refusal) => self.close(refused(refusal, "close")),
            Ok(Parsed::Complete { len }) => {
                self.accept(len);
                self.held.drain(..len);
                self.scan = Scan::default();
                // What follows a request that ends its connection is never read.
                self.closed = self.body.is_none() && !self.head.keep_alive;
                true
            }
        }
    }

    fn close(&mut self, line: String) -> bool {
        // Data decoded before the fault in the same piece is lost with it; only the refusal must not depend on cuts.
        self.outcome.lines.push(line);
        self.closed = true;
        false
    }

    fn accept(&mut self, len: usize) {
        let (head, bytes) = (&self.head, &self.held[..len]);
        if via_names(head, bytes, NODE) {
            return self.outcome.lines.push(refused(Refusal::Loop, "any"));
        }
        if head.max_forwards == Some(0) {
            return self.outcome.lines.push(refused(Refusal::MaxForwards, "any"));
        }
        let query = head.query.map(|q| format!("?{}", text(q.of(bytes)))).unwrap_or_default();
        let mut line = format!(
            "forward {} {} {}{query} {} {}",
            text(head.method_text.of(bytes)),
            or_dash(head.host.of(bytes)),
            text(head.path.of(bytes)),
            framing_text(head.framing),
            if head.keep_alive { "keep" } else { "close" },
        );
        if head.framing != Framing::None {
            write!(line, " body=").unwrap();
        }
        let mut out = vec![0; 65536];
        let sent = encode_request(head, bytes, &edits(head), &mut out).expect("a large lease holds any head");
        out.truncate(sent);
        means_the_same(head, bytes, &out);
        self.outcome.upstream.get_or_insert(out);
        self.outcome.lines.push(line);
        self.body = (head.framing != Framing::None).then(|| BodyDecoder::new(head.framing));
    }
}

/// The encoded head is exactly one request, and means what the first one did; encoded again, it changes no more.
fn means_the_same(head: &RequestHead, bytes: &[u8], sent: &[u8]) {
    let mut again = sent.to_vec();
    let mut second = RequestHead::default();
    let wide = HeadLimits { request_line: 16384, header_block: 65536, header_fields: 256 };
    let parsed = parse_request(&mut again, &mut Scan::default(), &wide, &mut second);
    if head.authority.is_empty() {
        // HTTP/1.0 without Host goes on with an empty one, which we ourselves would not take.
        return assert_eq!(parsed, Err(Refusal::HostInvalid));
    }
    assert_eq!(parsed, Ok(Parsed::Complete { len: sent.len() }), "{}", sent.escape_ascii());
    assert_eq!(again, sent, "a normal form is a fixed point");
    assert_eq!(second.method, head.method);
    assert_eq!(second.method_text.of(&again), head.method_text.of(bytes));
    assert_eq!(second.authority.of(&again), head.authority.of(bytes));
    assert_eq!(second.host.of(&again), head.host.of(bytes));
    assert_eq!(second.path.of(&again), head.path.of(bytes));
    assert_eq!(second.query.map(|q| q.of(&again).to_vec()), head.query.map(|q| q.of(bytes).to_vec()));
    assert_eq!(second.expect_continue, head.expect_continue);
    assert_eq!(second.upgrade_websocket, head.upgrade_websocket);
    assert_eq!((second.version, second.keep_alive), (Version::Http11, true));
    let no_body = |f| matches!(f, Framing::None | Framing::Length(0));
    assert!(second.framing == head.framing || no_body(second.framing) && no_body(head.framing));
    assert!(!via_names(head, bytes, NODE) && via_names(&second, &again, NODE));
}

fn requests(sent: &[u8], cut: &[usize]) -> Outcome {
    let mut reader = Requests::default();
    let mut from = 0;
    for to in cut.iter().copied().chain([sent.len()]) {
        reader.take(&sent[from..to]);
        from = to;
    }
    if !reader.closed && (reader.body.is_some() || !reader.held.is_empty()) {
        reader.outcome.lines.push("wait".to_owned());
    }
    reader.outcome
}

/// As a case file writes it: no body data before a refusal, for how much of it was seen depends on the cut.
fn stable(mut lines: Vec<String>) -> Vec<String> {
    if let [.., before, last] = lines.as_mut_slice()
        && !last.starts_with("forward")
        && last != "wait"
        && let Some(at) = before.find("body=")
    {
        before.truncate(at + 5);
    }
    lines
}

fn check(name: &str, sent: &[u8], outcomes: &[String]) -> Outcome {
    let whole = requests(sent, &[]);
    assert_eq!(stable(whole.lines.clone()), stable(outcomes.to_vec()), "{name}");
    for cut in cuts(sent.len()) {
        let this = requests(sent, &cut);
        let place = if cut.len() == 1 { format!("cut at {}", cut[0]) } else { "byte by byte".to_owned() };
        assert_eq!(stable(this.lines), stable(outcomes.to_vec()), "{name}, {place}");
        assert_eq!(this.upstream, whole.upstream, "{name}, {place}");
    }
    whole
}

fn check_text(case: &Case, sent: &[u8]) {
    let sent = sent.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"").to_ascii_lowercase();
    let lines: Vec<&str> = sent.split("\\r\\n").collect();
    for line in &case.has {
        assert!(lines.contains(&line.to_ascii_lowercase().as_str()), "{}: lacks {line}: {sent}", case.name);
    }
    for part in &case.lacks {
        assert!(!sent.contains(part), "{}: has {part}: {sent}", case.name);
    }
}

#[test]
fn every_request_case_however_cut() {
    let cases = cases(|file| file != "responses.txt");
    assert!(cases.len() > 400, "the case files are there");
    for case in &cases {
        let outcome = check(&case.name, &case.sent, &case.outcomes);
        check_text(case, outcome.upstream.as_deref().unwrap_or_default());
    }
}

/// O3: a case is the same behind a good request.
#[test]
fn every_request_case_behind_a_good_one() {
    let good = b"POST /good HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nok";
    for case in cases(|file| file != "responses.txt") {
        let mut expected = vec!["forward POST g /good length:2 keep body=ok".to_owned()];
        expected.extend(case.outcomes);
        let outcome = requests(&[good, case.sent.as_slice()].concat(), &[]);
        assert_eq!(stable(outcome.lines), stable(expected), "{}", case.name);
    }
}

/// F05: each octet in the four places around `Transfer-Encoding: chunked`. Only white space around the value passes.
#[test]
fn f05_every_octet_around_transfer_encoding() {
    for octet in (0x00..=0x1f).chain(0x20..=0x20).chain(0x7f..=0xff) {
        for place in 0..4 {
            let mut parts = [vec![], b"Transfer-Encoding".to_vec(), b":".to_vec(), b"chunked".to_vec()];
            match place {
                0 => parts[1].insert(0, octet),
                1 => parts[1].push(octet),
                2 => parts[3].insert(0, octet),
                _ => parts[3].push(octet),
            }
            let head = [b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec(), parts.concat()].concat();
            let sent = [head, b"\r\n\r\n0\r\n\r\n".to_vec()].concat();
            let outcome = requests(&sent, &[]).lines;
            let name = format!("octet {octet:#04x} at {place}: {outcome:?}");
            if place >= 2 && matches!(octet, b' ' | b'\t') {
                assert_eq!(outcome, ["forward POST a / chunked keep body="], "{name}");
            } else {
                assert!(
                    outcome.len() == 1 && outcome[0].starts_with("400 ") && outcome[0].ends_with(" close"),
                    "{name}"
                );
            }
            check(&name, &sent, &outcome);
        }
    }
}

/// A plain head with one octet changed, or one more, at each place: what is read at once is what the scan makes of it, which
/// reads every head that comes in two pieces.
fn check_each_octet(plain: &[u8], outcome: impl Fn(&[u8], &[usize]) -> Outcome) {
    for (at, octet) in (0..plain.len()).flat_map(|at| (0..=255).map(move |octet| (at, octet))) {
        let (before, after) = plain.split_at(at);
        for rest in [after, &after[1..]] {
            let sent = [before, &[octet], rest].concat();
            let (whole, cut) = (outcome(&sent, &[]), outcome(&sent, &[1]));
            let name = sent.escape_ascii();
            assert_eq!((stable(whole.lines), whole.upstream), (stable(cut.lines), cut.upstream), "{name}");
        }
    }
}

#[test]
fn heads_read_at_once_are_those_that_are_scanned() {
    let request =
        b"PUT /a?b HTTP/1.1\r\nHost: a.b:80\r\nX-Some:c  d\r\nContent-Length: 2\r\nVia: \r\nTE: x\r\n\r\nok";
    check_each_octet(request, requests);
    let response =
        b"HTTP/1.1 200 OK\r\nDate: now\r\nX-Y:c  d\r\nContent-Length: 2\r\nVia:\r\nServer: \xe9\r\n\r\nok";
    check_each_octet(response, |sent, cut| responses(sent, Method::Get, cut));
}

/// A head that comes byte by byte is examined once: no quadratic cost.
#[test]
fn a_slow_head_is_examined_once() {
    let sent = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: yyyyyyyyyyyyyyyyyyyy\r\n".repeat(99));
    let mut bytes = sent.into_bytes();
    let len = bytes.len();
    let (mut scan, mut head) = (Scan::default(), RequestHead::default());
    for end in 1..len {
        assert_eq!(parse_request(&mut bytes[..end], &mut scan, &LIMITS, &mut head), Ok(Parsed::Partial));
        // All but a CR that may yet be bare.
        assert!(end - scan.examined() <= 1, "{end} bytes, {} examined", scan.examined());
        assert!(head.fields.is_empty(), "nothing is read before the head is whole");
    }
    let parsed = parse_request(&mut bytes, &mut scan, &LIMITS, &mut head);
    assert_eq!((parsed, head.fields.len()), (Ok(Parsed::Complete { len }), 100));
}

// === responses

/// What the responses in `sent`, cut at `cut`, are taken for; and the last head to the client.
fn responses(sent: &[u8], method: Method, cut: &[usize]) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut held, mut scan, mut head) = (Vec::new(), Scan::default(), ResponseHead::default());
    let mut body: Option<BodyDecoder> = None;
    let mut from = 0;
    for to in cut.iter().copied().chain([sent.len()]) {
        held.extend_from_slice(&sent[from..to]);
        from = to;
        loop {
            if let Some(decoder) = &mut body {
                match decoder.decode(&mut held, None) {
                    Ok(step) => {
                        outcome.lines.last_mut().unwrap().push_str(&text(&held[..step.data]));
                        held.drain(..step.consumed);
                    }
                    Err(refusal) => {
                        outcome.lines.push(format!("502 {}", refusal.name()));
                        return outcome;
                    }
                }
                break;
            }
            match parse_response(&held, &mut scan, method, &mut head) {
                Ok(Parsed::Partial) => break,
                Err(refusal) => {
                    outcome.lines.push(format!("{} {}", refusal.status(), refusal.name()));
                    return outcome;
                }
                Ok(Parsed::Complete { len }) => {
                    accept_response(&head, &held[..len], &mut outcome);
                    held.drain(..len);
                    scan = Scan::default();
                    let interim = matches!(head.status, 100..=199) && head.status != 101;
                    body = (!interim).then(|| BodyDecoder::new(head.framing));
                }
            }
        }
    }
    match &body {
        Some(body) if body.is_done() && !held.is_empty() => {
            outcome.lines.push(format!("left {}", text(&held)))
        }
        Some(body) if body.on_close().is_err() => outcome.lines.push("wait".to_owned()),
        Some(_) => {}
        None => outcome.lines.push("wait".to_owned()),
    }
    outcome
}

fn accept_response(head: &ResponseHead, bytes: &[u8], outcome: &mut Outcome) {
    let edits = ResponseEdits {
        version: Version::Http11,
        framing: head.framing,
        close: false,
        keep_alive_10: false,
        upgrade: head.upgrade_websocket,
        via: NODE,
        date: b"Thu, 01 Jan 1970 00:00:00 GMT",
        sticky: None,
    };
    let mut out = vec![0; 65536];
    let len = encode_response(head, bytes, &edits, &mut out).expect("a large lease holds any head");
    out.truncate(len);
    let mut second = ResponseHead::default();
    // As the answer to HEAD, for this is about the head alone.
    let parsed = parse_response(&out, &mut Scan::default(), Method::Get, &mut second);
    if head.fields.len() < 250 && len < 57_000 {
        assert_eq!(parsed, Ok(Parsed::Complete { len }), "{}", out.escape_ascii());
        assert_eq!(second.status, head.status);
        assert!(head.framing == Framing::None || second.framing == head.framing);
    }
    outcome.upstream = Some(out);
    let keep = if head.keep_alive { "keep" } else { "close" };
    let mut line = format!("{} {} {keep}", head.status, framing_text(head.framing));
    line.push_str(if head.upgrade_websocket { " upgrade" } else { "" });
    line.push_str(if head.framing == Framing::None { "" } else { " body=" });
    outcome.lines.push(line);
}

#[test]
fn every_response_case_however_cut() {
    let cases = cases(|file| file == "responses.txt");
    assert!(cases.len() > 60, "the case file is there");
    for case in &cases {
        let method = match case.method.as_deref() {
            Some("HEAD") => Method::Head,
            _ => Method::Get,
        };
        let whole = responses(&case.sent, method, &[]);
        for cut in cuts(case.sent.len()) {
            let this = responses(&case.sent, method, &cut);
            assert_eq!(this.lines, case.outcomes, "{}, cut at {:?}", case.name, cut.first());
        }
        check_text(case, whole.upstream.as_deref().unwrap_or_default());
    }
}

// === any bytes at all

mod any {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that heads are made of, so that random heads come near to sound ones.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let known: &[&[u8]] = &[
            b"GET ",
            b"POST ",
            b"OPTIONS ",
            b"/ ",
            b"/a/../b?c ",
            b"http://b/ ",
            b"* ",
            b"HTTP/1.1\r\n",
            b"HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close, x\r\n",
            b"X: y\r\n",
            b"Via: 1.1 n\r\n",
            b"Expect: 100-continue\r\n",
            b"Upgrade: websocket\r\n",
            b"\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b" ",
            b":",
            b"\r",
            b"\n",
            b"%2e",
            b"//",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 304 \r\n",
        ];
        prop_oneof![
            8 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_panic_and_no_cut_matters(
            pieces in prop::collection::vec(piece(), 0..14),
            mut cut in prop::collection::vec(0usize..200, 0..6),
        ) {
            let sent = pieces.concat();
            cut.retain(|at| *at <= sent.len());
            cut.sort_unstable();
            let every: Vec<usize> = (1..sent.len().max(1)).collect();
            let whole = stable(requests(&sent, &[]).lines);
            prop_assert_eq!(&stable(requests(&sent, &cut).lines), &whole);
            prop_assert_eq!(&stable(requests(&sent, &every).lines), &whole);
            let whole = responses(&sent, Method::Get, &[]).lines;
            let cut_up = responses(&sent, Method::Get, &cut).lines;
            prop_assert_eq!(stable_response(cut_up), stable_response(whole));
        }

        #[test]
        fn a_sound_head_is_one_request(
            pieces in prop::collection::vec(piece(), 0..5),
            method in "[A-Z]{1,8}",
            path in "/[a-z/.%;0-9]{0,12}",
        ) {
            let middle: Vec<u8> = pieces.concat();
            let sent = [format!("{method} {path} HTTP/1.1\r\nHost: a\r\n").as_bytes(), &middle, b"\r\n"].concat();
            // `means_the_same` asserts inside.
            let _ = requests(&sent, &[]);
        }
    }

    /// Data before a refused chunk depends on the cut, as in requests.
    fn stable_response(mut lines: Vec<String>) -> Vec<String> {
        if let [.., before, last] = lines.as_mut_slice()
            && last.starts_with("502 ")
            && let Some(at) = before.find("body=")
        {
            before.truncate(at);
        }
        lines
    }
}
