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
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; REQUEST_ID_BYTES];
        let mut put = |at: usize, digits: usize, value: u64| {
            for i in 0..digits {
                out[at + i] = HEX[(value >> (4 * (digits - 1 - i)) & 15) as usize];
            }
        };
        put(0, 8, u64::from(self.process));
        put(9, 3, u64::from(self.shard));
        put(12, 12, self.count);
        out
    }
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
