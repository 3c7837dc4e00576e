//! PROXY headers: no bytes panic, the outcome does not depend on how they were cut, and what was read can be written.
#![no_main]

use dataplane::fault::CloseReason;
use dataplane::proto::proxy_header::{Reading, Version, passed_on, read, write};
use libfuzzer_sys::fuzz_target;

fn in_steps(bytes: &[u8], step: usize) -> Result<Reading, CloseReason> {
    let mut end = 0;
    loop {
        end = (end + step).min(bytes.len());
        let reading = read(&bytes[..end]);
        if !matches!(reading, Ok(Reading::Undecided | Reading::Begun)) || end == bytes.len() {
            return reading;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let whole = read(data);
    for step in [1, 7] {
        assert_eq!(in_steps(data, step), whole, "in steps of {step}");
    }
    let Ok(Reading::Whole(header)) = whole else { return };
    assert!(header.len <= data.len());
    let tlvs: Vec<u8> = passed_on(header.tlvs.of(data)).flatten().copied().collect();
    let mut out = [0; 8192];
    for version in [Version::V1, Version::V2] {
        let n = write(version, header.ends.as_ref(), &tlvs, &mut out).expect("room enough");
        let Ok(Reading::Whole(again)) = read(&out[..n]) else { return assert!(n > 4096) };
        assert_eq!((again.len, again.ends), (n, header.ends));
    }
});
