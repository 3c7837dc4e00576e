//! What must hold between limits; checked when they are compiled.

use super::*;

const _: () = assert!(
    REQUEST_LINE.max as usize + HEADER_BLOCK.max as usize + HEAD_ADDED_BYTES + 64
        <= LEASE_LARGE_BYTES - LEASE_HEADROOM - LEASE_TAILROOM,
    "the largest head, and what we add to it, fits one large lease"
);
const _: () = assert!(
    RESPONSE_HEADER_BLOCK + HEAD_ADDED_BYTES + STATUS_LINE_BYTES + 2
        <= LEASE_LARGE_BYTES - LEASE_HEADROOM - LEASE_TAILROOM
);
const _: () = assert!(EXHAUSTED_PAIRS.is_power_of_two());
const _: () = assert!(ENDPOINTS_MAX < HASH_SLOTS);
const _: () = assert!(
    REPLAY_BODY.max as usize <= LEASE_LARGE_BYTES - LEASE_HEADROOM - LEASE_TAILROOM,
    "the largest body that is held fits one large lease"
);
const _: () = assert!(
    RETRY_ATTEMPTS.max + 2 <= CONNECT_ATTEMPTS as u64,
    "the first attempt, its repeats and a hedge are attempts too"
);
const _: () = assert!(EVENTS.is_power_of_two());
const _: () = assert!(HEADER_FIELDS.max as usize <= HEADER_FIELDS_MAX);
const _: () =
    assert!(SPLICE_STEP_LAST <= CHAIN_LEASES * (LEASE_LARGE_BYTES - LEASE_HEADROOM - LEASE_TAILROOM));
const _: () = assert!(PIPES >= 2, "one to hold, and the last one");
const _: () = assert!(RING_SUBMISSION_ENTRIES <= RING_COMPLETION_ENTRIES);
