//! F5 and F6: a connection per request. Accept, receive, answer, close; F6 asks the origin on a connection of its own.
//! Both take a request, and its response, to be one segment.

use super::poll::{EventFlags, LISTENER, Poll, accept_all};
use crate::net;
use crate::origin::{Answers, SMALL, Wish};
use crate::slots::Slots;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An accepted connection, and the origin's once the request is there.
#[derive(Debug)]
struct Exchange {
    client: TcpStream,
    origin: Option<TcpStream>,
}

struct Floor {
    exchanges: Slots<Exchange>,
    answer: &'static [u8],
    origin: Option<SocketAddr>,
    buffer: Box<[u8]>,
}

/// What an event left to do.
enum Next {
    Wait,
    Done,
}

pub(super) fn serve(listener: TcpListener, origin: Option<SocketAddr>) -> anyhow::Result<()> {
    let poll = Poll::new(&listener)?;
    let mut floor = Floor {
        exchanges: Slots::new(),
        // It says so where the connection ends with it: a client takes an unannounced end for an error.
        answer: Answers::new().to(Wish { close: true, ..SMALL }).bytes,
        origin,
        buffer: vec![0; 16 * 1024].into(),
    };
    poll.run(|number, _| {
        if number == LISTENER {
            accept_all(&listener, |client| {
                let slot = floor.exchanges.add(Exchange { client, origin: None });
                // The request is often there already, and then this connection is never watched.
                match floor.step(&poll, slot) {
                    Ok(Next::Wait) if floor.watch_client(&poll, slot) => {}
                    _ => floor.exchanges.remove(slot),
                }
            });
            return;
        }
        let slot = u32::try_from(number).unwrap_or(u32::MAX);
        if !matches!(floor.step(&poll, slot), Ok(Next::Wait)) {
            floor.exchanges.remove(slot);
        }
    })
}

impl Floor {
    fn watch_client(&mut self, poll: &Poll, slot: u32) -> bool {
        self.exchanges.at(slot).is_some_and(|e| {
            e.origin.is_some() || poll.add(&e.client, u64::from(slot), EventFlags::IN).is_ok()
        })
    }

    fn step(&mut self, poll: &Poll, slot: u32) -> io::Result<Next> {
        let Some(exchange) = self.exchanges.at(slot) else { return Ok(Next::Wait) };
        let from = exchange.origin.as_mut().unwrap_or(&mut exchange.client);
        let len = match from.read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Wait),
            other => other?,
        };
        let bytes = &self.buffer[..len];
        match (self.origin, &exchange.origin) {
            _ if len == 0 => {}
            (None, _) => exchange.client.write_all(self.answer)?,
            (Some(_), Some(_)) => exchange.client.write_all(bytes)?,
            (Some(address), None) => {
                let mut origin = net::connect(address)?;
                origin.write_all(bytes)?;
                origin.set_nonblocking(true)?;
                poll.add(&origin, u64::from(slot), EventFlags::IN)?;
                exchange.origin = Some(origin);
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Done)
    }
}
