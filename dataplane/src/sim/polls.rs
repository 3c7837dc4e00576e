//! Polls of the simulated kernel: of sockets for bytes and for room, of listeners and eventfds.

use super::io::{SimIo, World};
use super::operations::{Descriptor, Thing, Verb};
use crate::io::{Fd, Outcome};

impl<W: World> SimIo<W> {
    pub(super) fn try_poll(&mut self, fd: Fd) {
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let Some(token) = descriptor.poll else { return };
        let ready = match descriptor.thing {
            Thing::Event(set) => set,
            Thing::Socket(id) => self.net.is_ready(id),
            Thing::Listener(id) => self.net.pending(id) > 0,
        };
        if ready {
            self.descriptors[fd.0 as usize].as_mut().unwrap().poll = None;
            self.complete(fd, Verb::Poll, token, Outcome::Ready);
        }
    }
    pub(super) fn try_poll_out(&mut self, fd: Fd) {
        let Ok(descriptor) = self.descriptor_mut(fd) else { return };
        let (Some(token), Thing::Socket(id)) = (descriptor.poll_out, &descriptor.thing) else { return };
        let id = *id;
        if self.net.has_room(id) {
            self.descriptors[fd.0 as usize].as_mut().unwrap().poll_out = None;
            self.complete(fd, Verb::PollOut, token, Outcome::Ready);
        }
    }
    /// Eventfds are written to from outside, without a notice.
    pub(super) fn serve_events(&mut self) {
        let shard = self.shard;
        for at in 0..self.events.len() {
            let fd = self.events[at];
            if let Ok(Descriptor { thing: Thing::Event(true), poll: Some(_), shard: of, .. }) =
                self.descriptor_mut(fd)
                && *of == shard
            {
                self.try_poll(fd);
            }
        }
    }
}
