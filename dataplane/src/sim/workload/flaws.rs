//! Requests that must be refused: each with the refusal that it earns.

use crate::fault::Refusal;

/// Writes one such request; the argument is its id.
type Write = fn(u32) -> Vec<u8>;

/// A POST with fields that contradict or break its framing.
fn post(id: u32, fields: &str, body: &str) -> Vec<u8> {
    format!("POST /x/{id} HTTP/1.1\r\nHost: sim.test\r\nX-Sim: {id}\r\n{fields}\r\n{body}").into_bytes()
}
/// A GET of `target` with further fields.
fn get(id: u32, target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: sim.test\r\nX-Sim: {id}\r\n{fields}\r\n").into_bytes()
}
fn chunked(id: u32, body: &str) -> Vec<u8> {
    post(id, "Transfer-Encoding: chunked\r\n", body)
}

pub(super) const FLAWS: &[(Refusal, Write)] = &[
    (Refusal::BadRequestLine, |_| b"GET\r\nHost: sim.test\r\n\r\n".to_vec()),
    (Refusal::BadMethod, |_| b"G=T / HTTP/1.1\r\nHost: sim.test\r\n\r\n".to_vec()),
    (Refusal::MethodTooLong, |_| [&b"M".repeat(40)[..], b" / HTTP/1.1\r\nHost: sim.test\r\n\r\n"].concat()),
    (Refusal::BadVersion, |_| b"GET / HTTQ/1.1\r\nHost: sim.test\r\n\r\n".to_vec()),
    (Refusal::UnsupportedVersion, |_| b"GET / HTTP/2.0\r\nHost: sim.test\r\n\r\n".to_vec()),
    (Refusal::BadTarget, |id| get(id, "*", "")),
    (Refusal::BadPath, |id| get(id, "/a%2fb", "")),
    (Refusal::FragmentInTarget, |id| get(id, "/a#b", "")),
    (Refusal::UserinfoInTarget, |id| get(id, "http://u:p@sim.test/", "")),
    (Refusal::WrongScheme, |id| get(id, "https://sim.test/", "")),
    (Refusal::RequestLineTooLong, |id| get(id, &format!("/{}", "a".repeat(9000)), "")),
    (Refusal::BareLf, |id| format!("GET / HTTP/1.1\nHost: sim.test\nX-Sim: {id}\n\n").into_bytes()),
    (Refusal::BareCr, |id| get(id, "/", "X-A: a\rb\r\n")),
    (Refusal::ControlCharacter, |id| get(id, "/", "X-A: a\x01b\r\n")),
    (Refusal::TooManyEmptyLines, |id| [b"\r\n\r\n\r\n\r\n".to_vec(), get(id, "/", "")].concat()),
    (Refusal::LeadingSpace, |_| b"GET / HTTP/1.1\r\n Host: sim.test\r\n\r\n".to_vec()),
    (Refusal::FoldedField, |id| get(id, "/", "X-A: a\r\n b\r\n")),
    (Refusal::BadFieldName, |id| get(id, "/", "X A: a\r\n")),
    (Refusal::BadFieldValue, |id| get(id, "/", "Connection: a b\r\n")),
    (Refusal::HeaderBlockTooLarge, |id| get(id, "/", &format!("X-A: {}\r\n", "a".repeat(20_000)))),
    (Refusal::TooManyFields, |id| get(id, "/", &"X-A: a\r\n".repeat(120))),
    (Refusal::HostMissing, |_| b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    (Refusal::HostRepeated, |id| get(id, "/", "Host: sim.test\r\n")),
    (Refusal::HostInvalid, |_| b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec()),
    (Refusal::ContentLengthInvalid, |id| post(id, "Content-Length: +5\r\n", "hello")),
    (Refusal::ContentLengthRepeated, |id| post(id, "Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
    (Refusal::LengthAndEncoding, |id| {
        post(id, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
    }),
    (Refusal::EncodingInvalid, |id| post(id, "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
    (Refusal::EncodingUnknown, |id| post(id, "Transfer-Encoding: cow\r\n", "0\r\n\r\n")),
    (Refusal::EncodingInHttp10, |_| {
        b"POST / HTTP/1.0\r\nHost: sim.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()
    }),
    (Refusal::ConnectionNamesField, |id| get(id, "/", "Connection: host\r\n")),
    (Refusal::UnderscoreTwin, |id| get(id, "/", "Content_Length: 5\r\n")),
    (Refusal::ChunkSizeInvalid, |id| chunked(id, "xyz\r\nhello\r\n0\r\n\r\n")),
    (Refusal::ChunkTerminatorInvalid, |id| chunked(id, "5\r\nhelloXX0\r\n\r\n")),
    (Refusal::ChunkExtensionTooLong, |id| {
        chunked(id, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000)))
    }),
    (Refusal::TrailerInvalid, |id| chunked(id, "0\r\nbad trailer\r\n\r\n")),
    (Refusal::TrailerTooLarge, |id| chunked(id, &format!("0\r\n{}\r\n", "X-A: a\r\n".repeat(200)))),
    (Refusal::RequestBodyTooLarge, |id| post(id, "Content-Length: 900000\r\n", "begin")),
    (Refusal::ExpectationUnknown, |id| post(id, "Expect: the-unexpected\r\nContent-Length: 5\r\n", "hello")),
    (Refusal::MethodNotAllowed, |_| b"CONNECT sim.test:443 HTTP/1.1\r\nHost: sim.test:443\r\n\r\n".to_vec()),
    (Refusal::Loop, |id| get(id, &format!("/x/{id}"), "Via: 1.1 sim\r\n")),
    (Refusal::MaxForwards, |id| {
        format!("OPTIONS /x/{id} HTTP/1.1\r\nHost: sim.test\r\nMax-Forwards: 0\r\n\r\n").into_bytes()
    }),
    (Refusal::NoRoute, |_| b"GET /nowhere HTTP/1.1\r\nHost: sim.test\r\n\r\n".to_vec()),
];
