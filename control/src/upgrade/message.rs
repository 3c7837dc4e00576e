//! What two processes say to each other in an upgrade: a line of JSON in each packet of a socket, bytes behind it where the line
//! says so, and descriptors beside it (unix(7), SOCK_SEQPACKET and SCM_RIGHTS).

use super::conns::Conn;
use dataplane::limits::{UPGRADE_DESCRIPTORS, UPGRADE_MESSAGE_BYTES, UPGRADE_PIECE_BYTES, UPGRADE_READY};
use dataplane::spec::{Listener, Protocol};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// The version of these messages, and of the encoded records of the access log in them. Another one is refused by whoever hears
/// it first.
pub(super) const VERSION: u32 = 4;

const SILENCE: &str = "it said nothing";
const END: &str = "it ended";

/// What is known of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) cluster: String,
    pub(crate) endpoint: String,
    /// The word of an operator, where there is one.
    pub(crate) state: Option<String>,
    /// What checks say, where there are any.
    pub(crate) up: Option<bool>,
}

/// A listener, and whether it is of tcp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Speaks {
    pub(crate) listener: String,
    pub(crate) tcp: bool,
}

impl Speaks {
    pub(crate) fn of(listener: &Listener) -> Self {
        Self { listener: listener.name.to_string(), tcp: listener.protocol == Protocol::Tcp }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum Message {
    /// First of all. `inherited` are the names of the descriptors that the former was started with.
    Hello {
        version: u32,
        inherited: Vec<String>,
    },
    /// Sockets of one address, as many as one packet carries; the same place again where there are more.
    Listener {
        place: usize,
        listener: String,
        asked: String,
    },
    /// The admin API's socket.
    Admin {
        asked: String,
    },
    Endpoint(Endpoint),
    /// An operator drains this cluster.
    Drains {
        cluster: String,
    },
    /// Bytes of what comes next, behind the line: one piece of them.
    Bytes,
    /// They are what was changed at run time.
    Changes,
    /// The file that the next process read is another where this was changed at run time: the file holds.
    Ended {
        name: String,
    },
    /// An established connection.
    Conn(Box<Conn>),
    /// Those since the last one are the next process's, once it has said that it has them.
    Take,
    Got,
    /// That was all.
    All,
    /// Every shard accepts: on what was at these places, and whether on the admin API's. Connections of `listeners` may come.
    Ready {
        taken: Vec<usize>,
        admin: bool,
        listeners: Vec<Speaks>,
    },
    /// The former accepts no more on what was taken.
    Yours,
    Mine,
}

/// A message, the bytes behind its line, and the descriptors beside it.
pub(super) type Heard = (Message, Vec<u8>, Vec<OwnedFd>);

/// One end of the socket between two processes. Calls wait.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
    /// Room for what is heard.
    heard: Vec<u8>,
}

impl Wire {
    pub(super) fn new(socket: OwnedFd) -> Self {
        // Without it, one that does not listen is waited for until it ends.
        let _ = set_socket_timeout(&socket, Timeout::Send, Some(UPGRADE_READY));
        // Half of it is for what the kernel keeps beside a packet (socket(7)). Where it is less, a long one is refused.
        let _ = set_socket_send_buffer_size(&socket, UPGRADE_MESSAGE_BYTES);
        Self { socket, heard: vec![0; UPGRADE_MESSAGE_BYTES] }
    }

    /// None where descriptors have run out.
    pub(super) fn share(&self) -> Option<OwnedFd> {
        self.socket.try_clone().ok()
    }

    pub(super) fn say(&self, message: &Message, with: &[BorrowedFd<'_>]) -> Result<(), String> {
        self.say_with(message, &[], with)
    }

    /// Says a message with `bytes` behind its line.
    pub(super) fn say_with(
        &self,
        message: &Message,
        bytes: &[u8],
        with: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        let mut text = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        text.push(b'\n');
        let len = text.len() + bytes.len();
        if len > UPGRADE_MESSAGE_BYTES {
            return Err(format!("a message of {len} bytes is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(UPGRADE_DESCRIPTORS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fits = with.len() <= UPGRADE_DESCRIPTORS;
        let rights = SendAncillaryMessage::ScmRights(with);
        if !(with.is_empty() || fits && beside.push(rights)) {
            return Err(format!("{} descriptors are too many for a message", with.len()));
        }
        let parts = [IoSlice::new(&text), IoSlice::new(bytes)];
        let said = sendmsg(&self.socket, &parts, &mut beside, SendFlags::NOSIGNAL);
        said.map(|_| ()).map_err(|errno| format!("it cannot be told: {errno}"))
    }

    /// The next message and its descriptors, within `within`.
    pub(super) fn hear(&mut self, within: Duration) -> Result<(Message, Vec<OwnedFd>), String> {
        self.hear_all(within).map(|(message, _, descriptors)| (message, descriptors))
    }

    /// The same with the bytes behind the message.
    pub(super) fn hear_all(&mut self, within: Duration) -> Result<Heard, String> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(within)).map_err(|errno| errno.to_string())?;
        self.hear_whenever()
            .map_err(|why| if why == SILENCE { format!("it said nothing for {within:?}") } else { why })
    }

    /// Says `bytes` in as many pieces as it takes.
    pub(super) fn say_bytes(&self, bytes: &[u8]) -> Result<(), String> {
        bytes.chunks(UPGRADE_PIECE_BYTES).try_for_each(|piece| self.say_with(&Message::Bytes, piece, &[]))
    }

    /// The next message, the bytes behind it, and its descriptors, whenever it comes. None once the other end is closed.
    pub(super) fn hear_next(&mut self) -> Result<Option<Heard>, String> {
        set_socket_timeout(&self.socket, Timeout::Recv, None).map_err(|errno| errno.to_string())?;
        match self.hear_whenever() {
            Err(why) if why == END => Ok(None),
            heard => heard.map(Some),
        }
    }

    /// Says and hears nothing more. Whether the last thing that the other end had said by then is `wanted`.
    pub(super) fn end_with(&mut self, wanted: &Message) -> bool {
        // What has come can still be heard, and what the other end says from now on fails there.
        let ended = shutdown(&self.socket, Shutdown::Both).is_ok();
        ended && self.hear(Duration::from_millis(1)).is_ok_and(|(last, _)| last == *wanted)
    }

    /// The same, whenever it comes, or as the last [`Wire::hear`] had it.
    fn hear_whenever(&mut self) -> Result<Heard, String> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(UPGRADE_DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let heard = loop {
            let mut parts = [IoSliceMut::new(&mut self.heard)];
            match recvmsg(&self.socket, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(SILENCE.to_owned()),
                Err(errno) => return Err(format!("it cannot be heard: {errno}")),
                Ok(heard) if heard.bytes == 0 => return Err(END.to_owned()),
                Ok(heard) => break heard,
            }
        };
        let mut descriptors = Vec::new();
        for one in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = one {
                descriptors.extend(some);
            }
        }
        if heard.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err("a message was cut off: descriptors have run out, or it is too long".to_owned());
        }
        let all = &self.heard[..heard.bytes];
        let end = all.iter().position(|byte| *byte == b'\n').unwrap_or(all.len());
        let (line, bytes) = (&all[..end], all.get(end + 1..).unwrap_or_default());
        serde_json::from_slice(line)
            .map(|message| (message, bytes.to_vec(), descriptors))
            .map_err(|error| format!("it speaks in tongues: {error}"))
    }
}

#[cfg(test)]
pub(super) fn pair() -> (Wire, Wire) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let made = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (one, other) = made.unwrap();
    (Wire::new(one), Wire::new(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn messages_carry_descriptors() {
        let (one, mut other) = pair();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let message = Message::Listener { place: 3, listener: "edge".into(), asked: "127.0.0.1:0".into() };
        let many = vec![listener.as_fd(); UPGRADE_DESCRIPTORS];
        one.say(&message, &many).unwrap();
        one.say(&Message::Yours, &[]).unwrap();
        let (heard, descriptors) = other.hear(SOON).unwrap();
        assert_eq!((heard, descriptors.len()), (message, UPGRADE_DESCRIPTORS));
        for descriptor in descriptors {
            let same = std::net::TcpListener::from(descriptor);
            assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
        }
        assert_eq!(other.hear(SOON).unwrap().0, Message::Yours);
        assert!(one.say(&Message::All, &vec![listener.as_fd(); UPGRADE_DESCRIPTORS + 1]).is_err());
    }

    #[test]
    fn what_was_said_before_the_end_counts_and_what_comes_later_fails() {
        let (mut one, mut other) = pair();
        other.say(&Message::Got, &[]).unwrap();
        assert!(one.end_with(&Message::Got));
        assert!(other.say(&Message::Got, &[]).is_err());
        assert_eq!(other.hear(SOON).unwrap_err(), END);
        let (mut one, other) = pair();
        assert!(!one.end_with(&Message::Got));
        assert!(other.say(&Message::Got, &[]).is_err());
    }

    #[test]
    fn silence_an_end_and_nonsense_are_told() {
        let (one, mut other) = pair();
        assert!(other.hear(SOON).unwrap_err().contains("nothing"));
        rustix::net::send(&one.socket, b"{\"say\":\"what\"}", SendFlags::NOSIGNAL).unwrap();
        assert!(other.hear(SOON).unwrap_err().contains("tongues"));
        let long = "x".repeat(UPGRADE_MESSAGE_BYTES);
        assert!(one.say(&Message::Admin { asked: long }, &[]).is_err());
        drop(one);
        assert_eq!(other.hear(SOON).unwrap_err(), "it ended");
        assert!(other.say(&Message::Mine, &[]).is_err());
    }
}
