//! From a completion or a timer to the object it is for. A stale one is counted and its resource returned.

use crate::conn::{self, Conn, upstream};
use crate::core::Core;
use crate::io::{Completion, Io, Kind, Message, Outcome, Token};
use crate::link::queue::Waiter;
use crate::link::{self, Link, Phase};
use crate::listener;
use crate::post::{self, Post};
use crate::table::Id;

/// Whether a completion is of the recv of an idle link: those are looked at before all others of the batch.
pub fn ends_idle_link(core: &Core, token: Token) -> bool {
    token.kind() == Kind::LinkRecv
        && Id::<Link>::of(token).and_then(|id| core.links.get(id)).is_some_and(|l| l.phase() == Phase::Idle)
}

/// Hands a completion to the conn, link or listener that it is for.
pub fn completion(core: &mut Core, io: &mut impl Io, completion: Completion) {
    let token = completion.token;
    match token.kind() {
        Kind::ConnRecv | Kind::ConnSend | Kind::ConnClose => {
            match Id::<Conn>::of(token).filter(|id| core.conns.contains(*id)) {
                Some(id) => conn::on_completion(core, io, id, completion),
                None => stale(core, io, completion),
            }
        }
        Kind::LinkConnect | Kind::LinkRecv | Kind::LinkSend | Kind::LinkClose => {
            match Id::<Link>::of(token).filter(|id| core.links.contains(*id)) {
                Some(id) => upstream::on_completion(core, io, id, completion),
                None => stale(core, io, completion),
            }
        }
        Kind::Accept => {
            let result = match completion.outcome {
                Outcome::Accepted(fd) => Ok(fd),
                Outcome::Failed(errno) => Err(errno),
                _ => return,
            };
            listener::on_accept(core, io, token.slot() as usize, result, completion.more);
        }
        Kind::Post => {
            if let (Some(post), Outcome::Failed(_)) =
                (Id::<Post>::of(token).and_then(|id| post::on_ended(core, id)), completion.outcome)
            {
                match post.message {
                    Message::Conn { listener, fd } => {
                        listener::even::on_failed(core, io, post.shard, (listener, fd));
                    }
                    message @ (Message::Place { .. } | Message::Wanted { .. }) => {
                        conn::queue::on_untold(core, message);
                    }
                }
            }
        }
        Kind::Message => {
            let Outcome::Message(message) = completion.outcome else { return };
            match message {
                Message::Conn { listener, fd } => listener::even::on_handed(core, io, listener, fd),
                Message::Place { cluster, hops } => conn::queue::on_place(core, io, cluster, hops),
                Message::Wanted { cluster } => link::queue::stir(core, cluster),
            }
        }
        Kind::ListenerClose
        | Kind::Mailbox
        | Kind::Backend
        | Kind::ConnStanding
        | Kind::LinkStanding
        | Kind::ConnTimer
        | Kind::LinkTimer
        | Kind::AcceptTimer
        | Kind::WaitTimer => {}
    }
}

/// For an earlier life of its slot (invariant 5). The bits in flight make it impossible; the count says if it happens.
fn stale(core: &mut Core, io: &mut impl Io, completion: Completion) {
    debug_assert!(false, "a stale completion: {completion:?}");
    core.stats.stale_completions.add(1);
    match completion.outcome {
        Outcome::Received(lease) => core.pool.give_back(lease),
        Outcome::Accepted(fd) | Outcome::Message(Message::Conn { fd, .. }) => io.discard(fd),
        _ => {}
    }
}

/// Hands a timer to what it is for. One for an earlier life is no error: its owner ended in the same turn.
pub fn timer(core: &mut Core, io: &mut impl Io, key: u64) {
    let token = Token(key);
    match token.kind() {
        Kind::ConnTimer => {
            if let Some(id) = Id::<Conn>::of(token).filter(|id| core.conns.contains(*id)) {
                conn::deadline::on_timer(core, io, id);
            }
        }
        Kind::LinkTimer => {
            if let Some(id) = Id::<Link>::of(token).filter(|id| core.links.contains(*id)) {
                upstream::on_timer(core, io, id);
            }
        }
        Kind::WaitTimer => {
            if let Some(id) = Id::<Waiter>::of(token).filter(|id| core.waiters.contains(*id)) {
                conn::queue::on_timer(core, io, id);
            }
        }
        Kind::AcceptTimer => listener::on_timer(core, io, token.slot() as usize),
        _ => debug_assert!(false, "{token:?} is no timer"),
    }
}
