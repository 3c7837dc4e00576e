//! Chunk by chunk, cut everywhere.

use super::super::BodyDecoder;
use super::*;
use crate::buf::{Class, PoolSize};
use crate::proto::Framing;
use proptest::prelude::*;

/// A plain decoder over whole bytes: data, trailer lines and the length of the coding; `None` if it is incomplete or
/// wrong. Knows no extensions but `;` and tokens.
fn naive(mut text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let whole = text.len();
    let mut data = Vec::new();
    loop {
        let line_len = text.windows(2).position(|w| w == b"\r\n")?;
        let digits = text[..line_len].split(|b| *b == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?.trim_end(), 16).ok()?;
        text = &text[line_len + 2..];
        if size == 0 {
            break;
        }
        data.extend_from_slice(text.get(..size)?);
        text = text[size..].strip_prefix(b"\r\n")?;
    }
    while !text.starts_with(b"\r\n") {
        let line_len = text.windows(2).position(|w| w == b"\r\n")?;
        text = &text[line_len + 2..];
    }
    Some((data, whole - text.len() + 2))
}

/// Decodes `text` cut at `cuts`; the data, and how many bytes belonged to the body if it ended.
fn decode(text: &[u8], cuts: &[usize], trailers: &mut Vec<u8>) -> Result<(Vec<u8>, Option<usize>), Refusal> {
    let mut body = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    let ends = cuts.iter().copied().filter(|c| *c <= text.len()).chain([text.len()]);
    for end in ends {
        while at < end {
            let mut piece = text[at..end].to_vec();
            let step = body.decode(&mut piece, Some(trailers))?;
            data.extend_from_slice(&piece[..step.data]);
            at += step.consumed;
            if step.end {
                return Ok((data, Some(at)));
            }
            assert_eq!(at, end, "a body that goes on takes every byte");
        }
    }
    Ok((data, None))
}

/// The outcome of `text` in one piece, checked against every cut in two and byte by byte.
fn outcome(text: &[u8]) -> Result<(Vec<u8>, Option<usize>), Refusal> {
    let whole = decode(text, &[], &mut Vec::new());
    let every: Vec<usize> = (0..text.len()).collect();
    assert_eq!(decode(text, &every, &mut Vec::new()), whole, "byte by byte: {}", text.escape_ascii());
    for cut in every {
        assert_eq!(decode(text, &[cut], &mut Vec::new()), whole, "cut at {cut}: {}", text.escape_ascii());
    }
    whole
}

#[test]
fn f15_sizes() {
    for (text, size) in [("5", 5), ("00000005", 5), ("0000000000000005", 5), ("a", 10), ("A", 10)] {
        let text = format!("{text}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        assert_eq!(outcome(text.as_bytes()), Ok((vec![b'x'; size], Some(text.len()))));
    }
    for text in [
        "-1",
        "+5",
        "0x5",
        "5 ",
        " 5",
        "\t5",
        "5_0",
        "g",
        "",
        "00000000000000005",
        "10000000000000005",
        "FFFFFFFFFFFFFFFF",
        "8000000000000000",
        "ffffffff0000000a0",
    ] {
        let text = format!("{text}\r\nhello\r\n0\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), Err(Refusal::ChunkSizeInvalid), "{text:?}");
    }
    for text in ["7fffffffffffffff\r\nx", "7FFFFFFF0000000A\r\nx"] {
        assert_eq!(outcome(text.as_bytes()), Ok((b"x".to_vec(), None)), "{text:?}");
    }
    assert_eq!(outcome(b"ffffffff0000000a\r\nx"), Err(Refusal::ChunkSizeInvalid));
}

#[test]
fn f16_terminators() {
    for text in [
        "5\rXhello",
        "5\nhello",
        "5\r\nhello\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\rX",
        "5\r\r;a\r\n",
        "5\r\r\nhello",
        "0\n\n",
        "0\rX",
    ] {
        assert_eq!(outcome(text.as_bytes()), Err(Refusal::ChunkTerminatorInvalid), "{text:?}");
    }
    for text in ["0\r\n\rX", "0\r\nX:POST / HTTP/1.1\r\n\n", "0\r\n\n", "0\r\n0\r\n\r\n"] {
        assert_eq!(outcome(text.as_bytes()), Err(Refusal::TrailerInvalid), "{text:?}");
    }
    // Cut off: not wrong, and not done.
    for text in
        ["5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\n\r"]
    {
        let mut body = BodyDecoder::new(Framing::Chunked);
        let step = body.decode(&mut text.as_bytes().to_vec(), None).unwrap();
        assert!(!step.end && body.on_close() == Err(Refusal::BodyTruncated), "{text:?}");
    }
    // A trailer that looks like a request is a trailer (and one that never ends is a body cut off).
    assert_eq!(outcome(b"0\r\nX:POST / HTTP/1.1\r\n\r\n"), Ok((vec![], Some(24))));
}

#[test]
fn f17_extensions() {
    for extension in [
        ";a",
        ";a=b",
        ";a=\"b\"",
        ";a=\"\\\"x\"",
        ";a=\"; \t\u{e9}\"",
        " ; a",
        ";a = b",
        ";a;b=c",
        ";a ;b",
        "\t;a",
    ] {
        let text = format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n");
        assert_eq!(outcome(text.as_bytes()), Ok((b"hello".to_vec(), Some(text.len()))), "{extension:?}");
    }
    for extension in [
        ";",
        ";a=",
        ";a=\"\r\n\"",
        ";a=\"b\nc\"",
        ";\nhello",
        ";a\r\rhello",
        ";\0x",
        ";a=\"\\\r\n\"",
        ";a=\"b\"c",
        ";=b",
        ";a=b c",
        ";;",
        "; ",
        ";a ",
        ";\u{e9}",
    ] {
        let text = format!("5{extension}\r\nhello\r\n0\r\n\r\n");
        let refusal = outcome(text.as_bytes()).expect_err(extension);
        assert!(
            matches!(refusal, Refusal::ChunkExtensionTooLong | Refusal::ChunkTerminatorInvalid),
            "{extension:?} {refusal:?}"
        );
    }
}

#[test]
fn f17_extension_limit_counts_the_whole_body() {
    let limit = CHUNK_EXTENSION_BYTES as usize;
    for (extension_len, refused) in [(limit - 1, false), (limit, false), (limit + 1, true)] {
        // ";" and the CR behind it count too: all that is read to know where the extension ends.
        let text = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(extension_len - 1));
        assert_eq!(decode(text.as_bytes(), &[], &mut Vec::new()).is_err(), refused, "{extension_len}");
    }
    let text = "1;a\r\nx\r\n".repeat(limit);
    assert_eq!(decode(text.as_bytes(), &[], &mut Vec::new()), Err(Refusal::ChunkExtensionTooLong));
}

#[test]
fn f20_what_is_behind_the_body_is_left() {
    assert_eq!(outcome(b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1"), Ok((b"abc".to_vec(), Some(13))));
}

#[test]
fn f19_trailers_are_kept_apart() {
    let mut trailers = Vec::new();
    let text = b"1\r\nx\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\nrest";
    assert_eq!(decode(text, &[], &mut trailers), Ok((b"x".to_vec(), Some(text.len() - 4))));
    assert_eq!(trailers, b"A: b\r\nContent-Length: 9\r\n");
}

#[test]
fn frames_fit_around_any_lease() {
    let mut pool = Pool::new(PoolSize { tiny: 2, small: 2, large: 2 });
    for class in Class::ALL {
        for size in [0, 1, 15, 16, 255, 256, class.capacity()] {
            for last in [false, true] {
                let data: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
                let mut lease = pool.take(class).unwrap();
                pool.append(&mut lease, &data);
                frame_chunk(&mut lease, &mut pool, last);
                let mut framed = pool.bytes(&lease).to_vec();
                pool.give_back(lease);
                if !last {
                    framed.extend_from_slice(LAST_CHUNK);
                }
                let len = framed.len();
                assert_eq!(
                    decode(&framed, &[], &mut Vec::new()),
                    Ok((data, Some(len))),
                    "{class:?} {size} {last}"
                );
            }
        }
    }
}

#[test]
fn size_lines() {
    for size in [1, 9, 10, 15, 16, 17, 255, 256, 65535, 65536, 0x1234_5678] {
        let mut line = [0; 10];
        let len = size_line(size, &mut line);
        assert_eq!(String::from_utf8_lossy(&line[..len]), format!("{size:x}\r\n"));
    }
}

/// Chunks with random extensions and trailers, well-formed.
fn coding() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        prop_oneof![Just(""), Just(";a"), Just(" ;a=b"), Just(";x;y=\"z\"")],
    );
    let trailer = prop_oneof![Just(""), Just("A: b\r\n"), Just("A:\r\nX-Long: some words\r\n")];
    (prop::collection::vec(chunk, 0..6), trailer).prop_map(|(chunks, trailer)| {
        let mut text = Vec::new();
        for (data, extension) in chunks {
            text.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
            text.extend_from_slice(&data);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        text
    })
}

proptest! {
    #[test]
    fn equals_a_plain_decoder_however_cut(text in coding(), mut cuts in prop::collection::vec(0usize..300, 0..8)) {
        cuts.sort_unstable();
        let plain = naive(&text);
        let (data, len) = decode(&text, &cuts, &mut Vec::new()).unwrap();
        prop_assert_eq!(plain, Some((data, len.unwrap())));
    }

    #[test]
    fn any_bytes_have_one_outcome(text in "([0-9a-fg;=\"\\\\ \t\r\n:x]|\r\n|0\r\n\r\n|3\r\nabc\r\n){0,24}") {
        let _ = outcome(text.as_bytes());
    }
}
