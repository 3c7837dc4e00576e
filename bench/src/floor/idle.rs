//! F7, by readiness: connections held by nothing but their descriptor, and an answer to whatever comes.

use super::poll::{EventFlags, LISTENER, Poll, accept_all};
use crate::origin::Answers;
use crate::slots::Slots;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

pub(super) fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let poll = Poll::new(&listener)?;
    let answer = Answers::new().small();
    let mut held: Slots<TcpStream> = Slots::new();
    let mut buffer = [0; 4096];
    poll.run(|number, _| {
        if number == LISTENER {
            accept_all(&listener, |stream| {
                let slot = held.add(stream);
                let added =
                    held.at(slot).is_some_and(|s| poll.add(s, u64::from(slot), EventFlags::IN).is_ok());
                if !added {
                    held.remove(slot);
                }
            });
            return;
        }
        let slot = u32::try_from(number).unwrap_or(u32::MAX);
        let Some(stream) = held.at(slot) else { return };
        let goes_on = match stream.read(&mut buffer) {
            Ok(1..) => stream.write_all(answer).is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(0) => false,
        };
        if !goes_on {
            held.remove(slot);
        }
    })
}
