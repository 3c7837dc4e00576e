//! The id of one exchange: in `x-request-id`, in our own answers, and in the access log.

use std::fmt;

/// Which process, which shard, and which exchange of that shard. Unique for as long as 48 bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// From [`process_tag`]; the same for all of a process's ids.
    pub process: u32,
    pub shard: u16,
    /// Exchanges that this shard began before this one; the low 48 bits are shown.
    pub count: u64,
}

/// Length of an id's text.
pub const REQUEST_ID_BYTES: usize = 24;

impl RequestId {
    /// `pppppppp-ssscccccccccccc`: process, shard (12 bits are enough for `limits::SHARDS`), count, in lower-case hex.
    pub fn text(&self) -> [u8; REQUEST_ID_BYTES] {
        let mut out = [0; REQUEST_ID_BYTES];
        let [_, _, a, b, c, d, e, f] = self.count.to_be_bytes();
        let [shard_high, shard_low] = (self.shard & 0xfff).to_be_bytes();
        out[..8].copy_from_slice(&hex(self.process));
        out[8..16].copy_from_slice(&hex(u32::from_be_bytes([shard_high, shard_low, a, b])));
        out[16..].copy_from_slice(&hex(u32::from_be_bytes([c, d, e, f])));
        out[8] = b'-';
        out
    }
}

/// Eight digits at once, one in each byte of a word.
fn hex(number: u32) -> [u8; 8] {
    let spread = |of: u64, bits: u32, mask: u64| (of | of << bits) & mask;
    let halves = spread(u64::from(number), 16, 0x0000_ffff_0000_ffff);
    let nibbles = spread(spread(halves, 8, 0x00ff_00ff_00ff_00ff), 4, 0x0f0f_0f0f_0f0f_0f0f);
    // 1 in each byte that is 10 or more: those are letters.
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let text = nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1);
    text.to_be_bytes()
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// The process's part of its ids: FNV-1a of its node name and its start, so that a restart under a configured name
/// does not repeat the ids of the run before.
pub fn process_tag(node: &str, start_wall_ns: u64) -> u32 {
    let bytes = node.bytes().chain(start_wall_ns.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_its_form() {
        let id = RequestId { process: 0x1f, shard: 1023, count: 0xabc };
        assert_eq!(id.to_string(), "0000001f-3ff000000000abc");
        let last = RequestId { process: u32::MAX, shard: 0, count: u64::MAX };
        assert_eq!(last.to_string(), "ffffffff-000ffffffffffff");
    }

    #[test]
    fn a_restart_changes_the_process() {
        assert_ne!(process_tag("edge", 1), process_tag("edge", 2));
        assert_ne!(process_tag("edge", 1), process_tag("edgf", 1));
    }
}
