//! ClientHellos: no bytes panic, and the outcome does not depend on how they were cut into pieces.
#![no_main]

use dataplane::fault::CloseReason;
use dataplane::proto::client_hello::{Hello, Scan, read};
use libfuzzer_sys::fuzz_target;

fn in_steps(bytes: &[u8], step: usize) -> (Result<Option<Hello>, CloseReason>, Vec<u8>) {
    let (mut scan, mut message, mut end) = (Scan::default(), Vec::new(), 0);
    loop {
        end = (end + step).min(bytes.len());
        let outcome = read(&bytes[..end], &mut scan, &mut message);
        if outcome != Ok(None) || end == bytes.len() {
            return (outcome, message);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let whole = in_steps(data, data.len().max(1));
    for step in [1, 7] {
        assert_eq!(in_steps(data, step), whole, "in steps of {step}");
    }
    if let (Ok(Some(hello)), message) = &whole {
        assert!(message.len() <= data.len());
        let name = hello.name(message).unwrap_or(b"a");
        assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with(b"."));
        assert!(name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b)));
        assert!(hello.protocols(message).all(|protocol| !protocol.is_empty()));
    }
});
