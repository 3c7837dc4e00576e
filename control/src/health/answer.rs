//! An answer to a check as it comes in, read by the same code as an origin's on the data path, and what it is worth.
//!
//! What is held is bounded: a head by the parser (`RESPONSE_HEADER_BLOCK`), a body by `CHECK_BODY_BYTES`; how long it may
//! take is the check's timeout.

use super::spec::Http;
use super::verdict::{Passed, Reason, Verdict};
use dataplane::fault::Refusal;
use dataplane::limits;
use dataplane::proto::http1::{BodyDecoder, Parsed, Scan, parse_response};
use dataplane::proto::{Framing, Method, ResponseHead};

/// One answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    http: &'a Http,
    /// Received and not yet understood: the head, then each piece of the body.
    raw: Vec<u8>,
    /// How much of `raw` is old.
    seen: usize,
    scan: Scan,
    head: ResponseHead,
    interim: u32,
    /// There once the head is whole.
    decoder: Option<BodyDecoder>,
    /// The first [`limits::CHECK_BODY_BYTES`] of the body.
    body: Vec<u8>,
    fault: Option<String>,
}

/// Whether more is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// `keep`: the connection serves the next check too.
    Done {
        keep: bool,
    },
}

/// Why nothing more was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// [`Progress::Done`].
    Done,
    /// The endpoint closed.
    Closed,
    TimedOut,
}

impl<'a> Answer<'a> {
    pub(super) fn new(http: &'a Http) -> Self {
        Self {
            http,
            raw: Vec::new(),
            seen: 0,
            scan: Scan::default(),
            head: ResponseHead::default(),
            interim: 0,
            decoder: None,
            body: Vec::new(),
            fault: None,
        }
    }

    /// Where to put what is received next, behind what is there.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.raw.reserve(limits::CHECK_READ_BYTES);
        &mut self.raw
    }

    /// What came since the last [`Answer::advance`].
    pub(super) fn news(&self) -> &[u8] {
        self.raw.get(self.seen..).unwrap_or_default()
    }

    /// Nothing came at all.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.decoder.is_none() && self.interim == 0
    }

    /// Reads what was put in the room.
    pub(super) fn advance(&mut self) -> Progress {
        if self.decoder.is_none() && self.read_head().is_none() {
            self.seen = self.raw.len();
            return if self.fault.is_some() { Progress::Done { keep: false } } else { Progress::More };
        }
        let progress = self.read_body();
        self.raw.clear();
        self.seen = 0;
        progress
    }

    /// Takes the heads at the front of `raw`; `None` until the final one is whole.
    fn read_head(&mut self) -> Option<()> {
        let method = if &*self.http.method == "HEAD" { Method::Head } else { Method::Get };
        loop {
            let len = match parse_response(&self.raw, &mut self.scan, method, &mut self.head) {
                Ok(Parsed::Partial) => return None,
                Ok(Parsed::Complete { len }) => len,
                Err(refusal) => {
                    self.fault = Some(told(refusal, &self.raw));
                    return None;
                }
            };
            let interim = matches!(self.head.status, 100 | 102..=199);
            if !interim {
                self.raw.drain(..len);
                self.decoder = Some(BodyDecoder::new(self.head.framing));
                return Some(());
            }
            self.interim += 1;
            if self.interim > limits::INTERIM_RESPONSES {
                self.fault = Some("too many interim responses".to_owned());
                return None;
            }
            self.raw.drain(..len);
            self.scan = Scan::default();
        }
    }

    /// Takes `raw`, a piece of the body.
    fn read_body(&mut self) -> Progress {
        let done = Progress::Done { keep: false };
        let Some(decoder) = &mut self.decoder else { return done };
        let decoded = match decoder.decode(&mut self.raw, None) {
            Ok(decoded) => decoded,
            Err(refusal) => {
                self.fault = Some(told(refusal, &self.raw));
                return done;
            }
        };
        let data = self.raw.get(..decoded.data).unwrap_or_default();
        let room = limits::CHECK_BODY_BYTES - self.body.len();
        self.body.extend_from_slice(data.get(..room).unwrap_or(data));
        if decoder.is_done() {
            let asked_for = decoded.consumed == self.raw.len();
            return Progress::Done { keep: asked_for && self.head.keep_alive && self.head.status != 101 };
        }
        if self.body.len() >= limits::CHECK_BODY_BYTES || !self.is_worth_reading() {
            return done;
        }
        Progress::More
    }

    /// Whether the rest of the body matters: it is searched, or it is small and the connection is kept.
    fn is_worth_reading(&self) -> bool {
        let small = match self.head.framing {
            Framing::None | Framing::Chunked => true,
            Framing::Length(length) => length <= limits::CHECK_BODY_BYTES as u64,
            Framing::UntilClose => false,
        };
        (self.http.body.is_some() && self.has_good_status()) || (small && self.head.keep_alive)
    }

    fn has_good_status(&self) -> bool {
        self.http.statuses.iter().any(|&(from, to)| (from..=to).contains(&self.head.status))
    }

    /// What the answer is worth, now that reading ended.
    pub(super) fn judge(&self, end: End) -> Verdict {
        let Some(decoder) = &self.decoder else { return Verdict::Failed(self.without_head(end)) };
        let code = self.head.status;
        if !self.has_good_status() {
            return Verdict::Failed(Reason::WrongStatus { code, body: quote(&self.body) });
        }
        let Some(wanted) = &self.http.body else { return Verdict::Passed(Passed::Layer7(code)) };
        if let Some(fault) = &self.fault {
            return Verdict::Failed(Reason::InvalidResponse(fault.clone()));
        }
        match end {
            End::TimedOut => return Verdict::Failed(Reason::Layer7Timeout),
            End::Closed if decoder.on_close().is_err() => {
                return Verdict::Failed(Reason::InvalidResponse(
                    "closed in the middle of the body".to_owned(),
                ));
            }
            End::Closed | End::Done => {}
        }
        match wanted.holds(&self.body) {
            true => Verdict::Passed(Passed::Layer7(code)),
            false => Verdict::Failed(Reason::WrongBody { code, body: quote(&self.body) }),
        }
    }

    fn without_head(&self, end: End) -> Reason {
        match (&self.fault, end) {
            (Some(fault), _) => Reason::InvalidResponse(fault.clone()),
            (None, End::TimedOut) => Reason::Layer7Timeout,
            (None, _) if self.raw.is_empty() => {
                Reason::InvalidResponse("closed without an answer".to_owned())
            }
            (None, _) => Reason::InvalidResponse("closed in the middle of the head".to_owned()),
        }
    }
}

/// Why bytes are no answer, and the first of them.
fn told(refusal: Refusal, bytes: &[u8]) -> String {
    format!("{}: {}", refusal.name(), quote(bytes))
}

/// The first bytes on one line: what is not plain ASCII is escaped.
fn quote(bytes: &[u8]) -> String {
    let first = bytes.get(..limits::CHECK_QUOTE_BYTES).unwrap_or(bytes);
    first.trim_ascii().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::spec::BodyMatch;
    use super::*;
    use dataplane::spec::Pattern;
    use proptest::prelude::*;

    fn http(body: Option<BodyMatch>) -> Http {
        Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            statuses: vec![(200, 399)],
            body,
        }
    }

    fn contains(text: &str) -> Option<BodyMatch> {
        Some(BodyMatch::Contains(text.as_bytes().into()))
    }

    /// Feeds `bytes` in pieces of `size`, then says `end` if more was wanted.
    fn feed(http: &Http, bytes: &[u8], size: usize, end: End) -> (Verdict, bool) {
        let mut answer = Answer::new(http);
        for piece in bytes.chunks(size) {
            answer.room().extend_from_slice(piece);
            assert_eq!(answer.news(), piece);
            if let Progress::Done { keep } = answer.advance() {
                return (answer.judge(End::Done), keep);
            }
            assert!(
                answer.raw.len() <= limits::RESPONSE_HEADER_BLOCK + 2 * limits::CHECK_READ_BYTES
                    && answer.body.len() <= limits::CHECK_BODY_BYTES
            );
        }
        (answer.judge(end), false)
    }

    #[track_caller]
    fn expect(http: &Http, bytes: &[u8], end: End, wanted: &str, keep: bool) {
        for size in [1, 2, 3, 7, 64, 4096] {
            let (verdict, kept) = feed(http, bytes, size, end);
            assert!(verdict.to_string().starts_with(wanted), "pieces of {size}: {verdict}");
            // Surplus that comes later is found when the connection is used again.
            assert!(kept == keep || size < 64, "pieces of {size}: kept {kept}");
        }
    }

    #[test]
    fn statuses_and_bodies_are_judged_however_they_are_cut() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nmaintaining\n";
        expect(&http(None), ok, End::Done, "Layer7 check passed, code: 200", true);
        expect(&http(contains("taining")), ok, End::Done, "Layer7 check passed", true);
        let wrong = "Layer7 wrong body, code: 200, info: \"maintaining\"";
        expect(&http(contains("healthy")), ok, End::Done, wrong, true);
        let regex = Some(BodyMatch::Regex(Pattern::new("^main.+ing\n$", false).unwrap()));
        expect(&http(regex), ok, End::Done, "Layer7 check passed", true);
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmain\r\n7\r\ntaining\r\n0\r\n\r\n";
        expect(&http(contains("maintaining")), chunked, End::Done, "Layer7 check passed", true);
        let error = b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 5\r\n\r\nno \"\n\x00";
        let wanted = "Layer7 wrong status, code: 500";
        expect(&http(None), error, End::Done, wanted, false);
        expect(&http(contains("x")), error, End::Closed, wanted, false);
        let interim = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n";
        expect(&http(None), interim, End::Done, "Layer7 check passed, code: 204", true);
    }

    #[test]
    fn a_body_until_the_end_is_read_only_where_it_is_searched() {
        let endless = b"HTTP/1.0 200 OK\r\n\r\nhello ";
        expect(&http(None), endless, End::TimedOut, "Layer7 check passed", false);
        expect(&http(contains("hello")), endless, End::Closed, "Layer7 check passed", false);
        expect(&http(contains("hello")), endless, End::TimedOut, "Layer7 timeout", false);
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
        expect(
            &http(contains("hello")),
            half,
            End::Closed,
            "Layer7 invalid response, info: \"closed in",
            false,
        );
        expect(&http(None), half, End::TimedOut, "Layer7 check passed", false);
    }

    #[test]
    fn an_endless_body_is_read_up_to_its_limit() {
        let mut bytes = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        bytes.resize(1 << 20, b'x');
        bytes.extend_from_slice(b"healthy");
        let (verdict, keep) = feed(&http(contains("healthy")), &bytes, 4096, End::TimedOut);
        assert!(verdict.to_string().starts_with("Layer7 wrong body, code: 200, info: \"xxxx"), "{verdict}");
        assert!(!keep);
    }

    #[test]
    fn what_is_no_answer_says_so() {
        for garbage in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\0\0\0\0\0\0\0\0", b"HTTP/1.1 20 OK\r\n\r\n"] {
            expect(&http(None), garbage, End::Closed, "Layer7 invalid response, info: \"response_", false);
        }
        expect(&http(None), b"", End::Closed, "Layer7 invalid response, info: \"closed without", false);
        expect(
            &http(None),
            b"HTTP/1.1 200",
            End::Closed,
            "Layer7 invalid response, info: \"closed in",
            false,
        );
        expect(&http(None), b"HTTP/1.1 200", End::TimedOut, "Layer7 timeout", false);
        let bad_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        expect(&http(contains("x")), bad_chunk, End::Closed, "Layer7 invalid response", false);
        let huge = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(100_000)].concat();
        let (verdict, _) = feed(&http(None), &huge, 4096, End::TimedOut);
        assert!(verdict.to_string().contains("response_header_too_large"), "{verdict}");
        let forever = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        let (verdict, _) = feed(&http(None), &forever, 4096, End::TimedOut);
        assert!(verdict.to_string().contains("too many interim"), "{verdict}");
    }

    /// Nobody asked for what follows: it would be taken for the answer to the next check.
    #[test]
    fn surplus_ends_the_connection() {
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 500 Oops\r\n\r\n";
        assert_eq!(feed(&http(None), two, 4096, End::Done), (Verdict::Passed(Passed::Layer7(200)), false));
    }

    proptest! {
        /// However bytes are cut, the verdict is of one class, and nothing grows beyond its bound (see `feed`).
        #[test]
        fn any_bytes_are_judged_alike(
            front in prop::sample::select(vec![
                "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.0 500 No\r\nContent-Length: 3\r\n\r\n",
            ]),
            rest in prop::collection::vec(prop::sample::select(b"\r\n:0aHT \x00\xff".to_vec()), 0..64),
            searched in any::<bool>(),
            size in 1_usize..9,
        ) {
            let http = http(if searched { contains("a") } else { None });
            let bytes = [front.as_bytes(), &rest].concat();
            let whole = feed(&http, &bytes, 4096, End::Closed).0;
            prop_assert_eq!(feed(&http, &bytes, size, End::Closed).0.class(), whole.class());
        }
    }
}
