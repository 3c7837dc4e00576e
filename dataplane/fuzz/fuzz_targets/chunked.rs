//! Chunked bodies against a plain decoder over whole bytes: what we accept it accepts, and both find the same data.
#![no_main]

use dataplane::fault::Refusal;
use dataplane::proto::Framing;
use dataplane::proto::http1::BodyDecoder;
use libfuzzer_sys::fuzz_target;

/// Data, and how many bytes belonged to the body if it ended.
type Outcome = Result<(Vec<u8>, Option<usize>), Refusal>;

fn decode(text: &[u8], step: usize, trailers: &mut Vec<u8>) -> Outcome {
    let mut body = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    for piece in text.chunks(step) {
        let mut piece = piece.to_vec();
        let done = body.decode(&mut piece, Some(trailers))?;
        assert!(done.data <= done.consumed && done.consumed <= piece.len());
        data.extend_from_slice(&piece[..done.data]);
        at += done.consumed;
        if done.end {
            assert!(body.is_done());
            return Ok((data, Some(at)));
        }
        assert_eq!(done.consumed, piece.len(), "a body that goes on takes every byte");
    }
    assert_eq!(body.on_close(), Err(Refusal::BodyTruncated));
    Ok((data, None))
}

/// RFC 9112 7.1, lenient: it looks for CRLF, takes the digits and trusts the rest. `None`: incomplete or wrong.
fn plain(mut text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let whole = text.len();
    let mut data = Vec::new();
    loop {
        let line_len = text.windows(2).position(|w| w == b"\r\n")?;
        let digits = text[..line_len].iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = u64::from_str_radix(std::str::from_utf8(&text[..digits]).ok()?, 16).ok()?;
        text = &text[line_len + 2..];
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        data.extend_from_slice(text.get(..size)?);
        text = text[size..].strip_prefix(b"\r\n")?;
    }
    while !text.starts_with(b"\r\n") {
        text = &text[text.windows(2).position(|w| w == b"\r\n")? + 2..];
    }
    Some((data, whole - text.len() + 2))
}

fuzz_target!(|data: &[u8]| {
    let mut trailers = Vec::new();
    let whole = decode(data, data.len().max(1), &mut trailers);
    for step in [1, 3] {
        let mut other = Vec::new();
        let cut = decode(data, step, &mut other);
        assert_eq!(cut, whole, "in steps of {step}");
        assert!(whole.is_err() || other == trailers);
    }
    match whole {
        Ok((body, Some(len))) => assert_eq!(plain(data), Some((body, len))),
        // Cut off: the plain decoder, which is no stricter, cannot see an end either.
        Ok((_, None)) => assert_eq!(plain(data), None),
        Err(_) => {}
    }
});
