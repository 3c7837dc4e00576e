//! Durations and sizes as the file writes them: one whole number and one unit, `"250ms"`, `"64KiB"`.
//!
//! No crate reads exactly this: humantime takes "1 month 2min", bytesize takes "1.5 kB" and guesses at what K means.

use std::time::Duration;

/// Units of time, longest first, in milliseconds.
const TIME: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Units of size, largest first, in bytes.
const SIZE: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// No duration is longer, so that a point in time plus a duration never overflows.
const LONGEST_MS: u64 = 3650 * 86_400_000;

/// `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"7d"`. The error says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let ms = parse(text, TIME, "a duration", "10s")?;
    if ms > LONGEST_MS {
        return Err(format!("{text:?} is too long: 3650d is the longest"));
    }
    Ok(Duration::from_millis(ms))
}

/// Bytes: `"500B"`, `"64KiB"`, `"10MiB"`, `"2GiB"`. The error says what is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, SIZE, "a size", "64KiB")
}

fn parse(text: &str, units: &[(&str, u64)], what: &str, example: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let names = || units.iter().rev().map(|u| u.0).collect::<Vec<_>>().join(", ");
    if number.is_empty() {
        return Err(format!(
            "{text:?} is not {what}: a whole number and a unit ({}), as {example:?}",
            names()
        ));
    }
    if unit.is_empty() {
        return Err(format!("{text:?} lacks its unit ({}), as {example:?}", names()));
    }
    let Some(&(_, factor)) = units.iter().find(|u| u.0 == unit) else {
        return Err(format!("{unit:?} is not a unit of {what}: {}, as {example:?}", names()));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// A duration in the longest unit that divides it.
pub(super) fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), TIME, "0s")
}

/// A size in the largest unit that divides it.
pub(super) fn format_size(bytes: u64) -> String {
    format(bytes, SIZE, "0B")
}

fn format(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    match units.iter().find(|(_, factor)| value.is_multiple_of(*factor)) {
        Some((unit, factor)) if value > 0 => format!("{}{unit}", value / factor),
        _ => zero.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "s", "10", "10 s", " 10s", "10S", "1.5s", "-1s", "+1s", "1h30m", "10sec", "1_0s", "٣s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        parse_duration("3650d").unwrap();
        parse_duration("3651d").unwrap_err();
        assert!(parse_duration("99999999999999999999h").unwrap_err().contains("too large"));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("500B", 500), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["64", "64K", "64KB", "64kib", "64 KiB", "-1B", "1.5KiB", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn written_as_read() {
        for text in ["250ms", "10s", "90s", "1h", "7d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["500B", "64KiB", "1MiB", "1023B"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!((format_duration(Duration::ZERO).as_str(), format_size(0).as_str()), ("0s", "0B"));
    }
}
