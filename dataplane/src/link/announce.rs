//! The PROXY header in front of a link's own bytes, where its cluster sends one.
//!
//! It says who the one client is whose bytes follow. Such a link is never pooled (`pool::put`): the next request on it
//! would come from somebody else.

use super::Link;
use crate::buf::Class;
use crate::conn::Conn;
use crate::core::Core;
use crate::fault::Refusal;
use crate::io::Io;
use crate::limits::PROXY_V1_BYTES;
use crate::proto::proxy_header::{self, Ends, Version};
use crate::spec::SendProxy;
use crate::table::Id;

/// Bytes of a version 2 header of ours without TLVs: IPv6, the longer one.
const V2_BYTES: usize = 16 + 36;

/// Queues the header of a link that has just been connected for the client of `conn`; nothing where none is wanted.
///
/// # Errors
/// [`Refusal::BuffersExhausted`].
pub fn announce(core: &mut Core, io: &mut impl Io, id: Id<Link>, conn: Id<Conn>) -> Result<(), Refusal> {
    let Core { conns, links, pool, snapshot, .. } = core;
    let (Some(link), Some(conn)) = (links.get_mut(id), conns.get(conn)) else { return Ok(()) };
    let Some(version) = snapshot.cluster(link.cluster).and_then(|cluster| cluster.send_proxy) else {
        return Ok(());
    };
    let preface = conn.preface.as_deref();
    let announced = preface.and_then(|preface| preface.destination);
    // Without either the socket is gone, and the client with it.
    let destination = announced.or_else(|| io.local_address(conn.stream.fd).ok());
    let ends = destination.map(|destination| Ends { source: conn.peer, destination });
    let tlvs = preface.map_or(&[][..], |preface| &preface.tlvs);
    let (version, room) = match version {
        SendProxy::V1 => (Version::V1, PROXY_V1_BYTES),
        SendProxy::V2 => (Version::V2, V2_BYTES + tlvs.len()),
    };
    let Some(mut lease) = Class::for_bytes(room).and_then(|class| pool.take(class)) else {
        return Err(Refusal::BuffersExhausted);
    };
    match proxy_header::write(version, ends.as_ref(), tlvs, pool.spare_mut(&mut lease)) {
        Some(n) => {
            lease.extend(n);
            link.stream.push(lease);
            link.private = true;
            Ok(())
        }
        None => {
            pool.give_back(lease);
            Err(Refusal::BuffersExhausted)
        }
    }
}
