//! What is kept of an exchange that became a tunnel, which may stay for days: no more than is needed.

use crate::core::Core;
use crate::fault::{At, CloseReason, End};
use crate::io::Mono;
use crate::spec::{ClusterId, EndpointId, ListenerId, RouteId};
use crate::stats::access_log::Record;
use std::time::Duration;

#[derive(Debug)]
pub struct Upgraded {
    /// How long its link may take nothing, where its route says so.
    pub send: Option<Duration>,
    /// When the exchange began.
    pub started: Mono,
    /// Its record, encoded, without what its end will add; none where no access log is written.
    pub record: Option<Box<[u8]>>,
}

/// What a tunnel is of.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub listener: ListenerId,
    pub route: Option<RouteId>,
    pub cluster: Option<ClusterId>,
    pub endpoint: Option<EndpointId>,
}

impl Upgraded {
    /// None where there is nothing to keep.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self.send.is_some() || self.record.is_some()).then(|| Box::new(self))
    }

    /// Of a tunnel that came from another process, whose `record` names what there is here as `names` says.
    pub fn adopted(
        send: Option<Duration>,
        started: Mono,
        record: Option<&[u8]>,
        names: Names,
    ) -> Option<Box<Self>> {
        let record = record.and_then(Record::decode).map(|record| {
            let Names { listener, route, cluster, endpoint } = names;
            let mut bytes = Vec::new();
            Record { listener, route, cluster, endpoint, ..record }.encode(&mut bytes);
            bytes.into_boxed_slice()
        });
        Self { send, started, record }.boxed()
    }

    /// The route that an encoded record names.
    pub fn route_of(record: &[u8]) -> Option<RouteId> {
        Record::decode(record)?.route
    }

    /// Writes the record of the exchange, and of the tunnel that carried so many bytes up and down and ends now.
    pub fn write(&self, core: &mut Core, close: CloseReason, carried: (u64, u64)) {
        let Some(mut record) = self.record.as_ref().and_then(|bytes| Record::decode(bytes)) else { return };
        record.timings.end(core.now().since(self.started) / 1000);
        (record.tunnel_up_bytes, record.tunnel_down_bytes) = carried;
        record.close = Some(close);
        record.end = End::of_close(close, At::Data);
        core.log.write(&record);
    }
}
