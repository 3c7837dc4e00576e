//! Memory that may be locked, as the rings of the shards found it: what doctor, the log and `ringway status` say of it.

use dataplane::plane::RingMemory;

/// What lifts the limit.
pub(crate) const MEND: &str = "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)";

/// What was got, what was asked and why; `None` where the rings are as they should be.
pub(crate) fn shortage(rings: &RingMemory) -> Option<String> {
    let RingMemory { shards, asked, got, lockable } = *rings;
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let limit = match lockable {
        u64::MAX => "the kernel had no more memory for them".to_owned(),
        bytes => format!("{} KiB may be locked (RLIMIT_MEMLOCK)", kib(bytes)),
    };
    rings.is_short().then(|| {
        format!(
            "{shards} rings of {} KiB in place of {} KiB, because {limit}: bursts are taken in more turns",
            kib(got),
            kib(asked)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortage_names_what_was_got_and_asked_and_the_limit() {
        let said = |lockable| shortage(&RingMemory::planned(8, lockable));
        assert_eq!(said(u64::MAX), None);
        let said = said(8 << 20).unwrap();
        let wanted =
            "8 rings of 580 KiB in place of 1156 KiB, because 8192 KiB may be locked (RLIMIT_MEMLOCK)";
        assert!(said.starts_with(wanted), "{said}");
        let others = RingMemory { shards: 2, asked: 1156 << 10, got: 580 << 10, lockable: u64::MAX };
        assert!(shortage(&others).unwrap().contains("no more memory"));
    }
}
