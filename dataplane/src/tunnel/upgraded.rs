//! What is kept of an exchange that became a tunnel, which may stay for days: no more than is needed.

use crate::core::Core;
use crate::fault::{At, CloseReason, End};
use crate::io::Mono;
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

impl Upgraded {
    /// None where there is nothing to keep.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self.send.is_some() || self.record.is_some()).then(|| Box::new(self))
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
