//! What the end-to-end tests stand on: the real binary, a raw client, and origins that misbehave on demand.

pub mod client;
pub mod dns;
pub mod namespace;
pub mod origin;
pub mod programs;
pub mod proxy;
pub mod seccomp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longer than anything here should take on a loaded machine; only a failing test waits it out.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Says why a test does not run here. Where RINGWAY_NO_SKIP is set that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var_os("RINGWAY_NO_SKIP").is_none(), "may not be skipped here: {why}");
    eprintln!("skipped: {why}");
}

/// Polls until `true`; fails with `what` after [`PATIENCE`]. For what has no event to wait for.
pub fn eventually(what: &str, mut true_yet: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_yet() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lets time pass where passing time is what is tested; never to wait for something to happen.
pub fn pause(how_long: Duration) {
    std::thread::sleep(how_long);
}

/// Bytes that differ from place to place, so that a lost, doubled or displaced piece shows.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Compares large bodies without printing them.
#[track_caller]
pub fn assert_same(got: &[u8], want: &[u8], what: &str) {
    let differ = got.iter().zip(want).position(|(a, b)| a != b);
    assert!(
        got == want,
        "{what}: {} bytes, wanted {}; first difference at {differ:?}",
        got.len(),
        want.len()
    );
}

/// `body` in chunks of `size`, ended.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// An address of this machine where nobody listens.
pub fn closed_port() -> SocketAddr {
    // 127.0.0.1 with a port that was free a moment ago; tests bind port 0 only, so it is not taken again soon.
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The `nth` configuration of docs/recipes/`name`.md, as it stands there.
pub fn recipe(name: &str, nth: usize) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/recipes/{name}.md"));
    let text = std::fs::read_to_string(path).expect("the recipe");
    let block = text.split("```toml\n").nth(nth + 1).and_then(|rest| rest.split("```").next());
    block.expect("a block").to_owned()
}

/// `text` with each of `swaps` made, which all have to be there.
#[track_caller]
pub fn with(text: &str, swaps: &[(&str, &str)]) -> String {
    swaps.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "there is no {from:?} in {text}");
        text.replace(from, to)
    })
}
