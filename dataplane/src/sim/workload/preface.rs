//! PROXY headers of the workload: whom each client claims to be, and what an origin is told of it.

use crate::io::SocketAddress;
use crate::proto::proxy_header::{Ends, Reading, Version, read, write};
use crate::spec::SendProxy;

/// PP2_TYPE_UNIQUE_ID.
const TLVS: &[u8] = b"\x05\0\x02id";

/// Where every client says that it connected to.
fn destination() -> SocketAddress {
    SocketAddress::new([192, 0, 2, 1].into(), 443)
}

/// Who the client with this number says it is; `None`: it does not say, or speaks for itself.
pub(super) fn claimed(client: u32, required: bool) -> Option<SocketAddress> {
    let [_, a, b, c] = client.to_be_bytes();
    let address = SocketAddress::new([10, a, b, c].into(), 1024);
    match client % 4 {
        0 | 1 => Some(address),
        3 if required => Some(address),
        _ => None,
    }
}

/// The first bytes of the client's connection: version 1 or 2, LOCAL, or nothing where that is allowed.
pub(super) fn header(client: u32, required: bool) -> Vec<u8> {
    let claimed = claimed(client, required);
    if claimed.is_none() && client % 4 == 3 {
        return Vec::new();
    }
    let ends = claimed.map(|source| Ends { source, destination: destination() });
    let version = if client.is_multiple_of(4) { Version::V1 } else { Version::V2 };
    let mut bytes = vec![0; 256];
    let tlvs: &[u8] = if client % 4 == 3 { &[] } else { TLVS };
    let n = write(version, ends.as_ref(), tlvs, &mut bytes).unwrap_or_default();
    bytes.truncate(n);
    bytes
}

/// The header that has to go on where the client sent one that names it.
pub(super) fn passed_on(client: u32, required: bool, send: SendProxy) -> Option<Vec<u8>> {
    let ends = Ends { source: claimed(client, required)?, destination: destination() };
    let kept = if client % 4 == 1 { TLVS } else { &[] };
    let version = if send == SendProxy::V1 { Version::V1 } else { Version::V2 };
    let mut bytes = vec![0; 256];
    let n = write(version, Some(&ends), kept, &mut bytes)?;
    bytes.truncate(n);
    Some(bytes)
}

/// The header at the front of a link's bytes: its length, and the client that it names. `None` while it is incomplete.
pub(super) fn announced(bytes: &[u8]) -> Option<Result<(usize, SocketAddress), String>> {
    match read(bytes) {
        Ok(Reading::Undecided | Reading::Begun) => None,
        Ok(Reading::Whole(header)) => match header.ends {
            Some(ends) => Some(Ok((header.len, ends.source))),
            None => Some(Err("a PROXY header without addresses".into())),
        },
        other => Some(Err(format!("no PROXY header but {other:?}"))),
    }
}
