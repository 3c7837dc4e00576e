//! What is told of a start: that it went well, or why not.

use crate::admin::Api;
use crate::config::Loaded;
use crate::locked;
use crate::ready;
use dataplane::io::Address;
use dataplane::plane::{Plane, StartError};

/// Why the plane did not start, in one line that says what to change.
pub(super) fn explain(error: &StartError) -> String {
    match error {
        StartError::Bind { listener, address: address @ Address::Unix(_), errno } => {
            let hint = match errno.0 {
                libc::EADDRINUSE => "; somebody listens there: end it, or change the path",
                libc::ENOTSOCK => "; a file is there that is no socket: it is not touched",
                libc::ENOENT => "; its directory does not exist",
                libc::EACCES => "; the directory must be writable, and a socket there to be replaced too",
                _ => "",
            };
            format!("cannot listen on {address} (listener {listener}): {errno}{hint}")
        }
        StartError::Inherited { listener, fd, why } => {
            format!("cannot listen on fd:{fd} (listener {listener}): it {why}")
        }
        StartError::Bind { listener, address, errno } => {
            let hint = match errno.0 {
                libc::EADDRINUSE => "; something else listens there: end it, or change the address",
                libc::EACCES => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                libc::EADDRNOTAVAIL => "; this machine has no such address",
                _ => "",
            };
            format!("cannot listen on {address} (listener {listener}): {errno}{hint}")
        }
        StartError::Machine(why) => why.clone(),
    }
}

/// Why the admin API does not listen, likewise.
pub(super) fn explain_api(to: &Address, error: &std::io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "; something else listens there: end it, or change the address",
        Some(libc::EADDRNOTAVAIL) => "; this machine has no such address",
        Some(libc::ENOTSOCK) => "; a file is there that is no socket: it is not touched",
        Some(libc::ENOENT) => "; its directory does not exist",
        Some(libc::EACCES) => "; this process may not",
        _ => "",
    };
    format!("cannot listen on {to} (admin): {error}{hint}")
}

/// Tells the world that every shard listens.
pub(super) fn announce(plane: &Plane, loaded: &Loaded, api: Option<&Api>, demo: bool) {
    let snapshot = &loaded.snapshot;
    let name = |id| snapshot.listener(id).map_or("", |listener| &listener.name);
    let bound = plane.bound();
    let bound: Vec<_> = bound.iter().map(|bound| (name(bound.listener), &bound.address)).collect();
    let shards = usize::from(snapshot.runtime.shards);
    let admin = api.map(|api| api.address().to_string());
    if demo {
        ready::print(&ready::demo_text(&bound, admin.as_deref(), shards));
    } else {
        ready::print(&ready::line(&bound, admin.as_deref(), shards));
    }
    ready::notify("READY=1");
}

/// Says so where the rings are not as they should be.
pub(super) fn warn_of_shortage(plane: &Plane) {
    if let Some(shortage) = locked::shortage(&plane.ring_memory()) {
        tracing::warn!("{shortage}; mend: {}", locked::MEND);
    }
}
