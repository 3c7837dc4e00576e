//! A bounded queue from one thread to one other that sleeps in its ring: control's commands to a shard.
//!
//! The receiver says that it is about to sleep, then looks once more; the sender pushes, then looks whether the
//! receiver sleeps, and only then pays for a wake-up. A fence between the two steps on each side makes sure that at
//! least one of them sees the other. The flag is changed by swaps alone, so that each change follows from the one
//! before: loom does not order a plain store among another thread's swaps. `tests/loom.rs` walks every interleaving, with `queue` in rtrb's place.

#[cfg(loom)]
mod queue;
#[cfg(loom)]
use queue::{Consumer, Producer, PushError, RingBuffer};
#[cfg(not(loom))]
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::listing::Listing;
use super::swap::Swap;
use crate::conn::moving::{Moved, Moving};
use crate::spec::ClusterId;
use crate::sync::{Arc, AtomicBool, Ordering, Padded, fence};
use std::fmt;
use std::time::Duration;

/// What control asks of a shard.
#[derive(Debug)]
pub enum Command {
    /// Stop accepting, finish what runs, then stop; what still runs after `within` is cut.
    Drain { within: Duration },
    /// Close everything now and stop.
    Stop,
    /// The condition of an endpoint of this cluster changed. Picks see it anyhow; this is for links and requests that wait.
    Look { cluster: ClusterId },
    /// Go over to another configuration, and give back what was.
    Swap(Box<Swap>),
    /// Have tunnels, and conns that wait for a request, go to another process.
    Move(Box<Moving>),
    /// A conn of the process before this one.
    Adopt(Box<Moved>),
    /// Accept no more on the sockets of these numbers, and leave who waits there to another process.
    GiveUp(Box<[u32]>),
    /// Another process accepts no more on the sockets that both had.
    AcceptAnew,
    /// Say which conns there are, or close one.
    List(Box<Listing>),
    /// Fail on purpose, for the test that a shard's death is the process's.
    Inject(Failure),
}

/// A failure that a test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Panic,
    /// Never finish the turn.
    Stall,
}

/// The two ends of a queue of at most `capacity` messages. `wake` ends the receiver's sleep; it may also come too
/// early, late or for nothing.
pub fn mailbox<T>(capacity: usize, wake: impl Fn() + Send + 'static) -> (Sender<T>, Receiver<T>) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let asleep = Arc::new(Padded(AtomicBool::new(false)));
    let sender = Sender { queue: producer, asleep: asleep.clone(), wake: Box::new(wake) };
    (sender, Receiver { queue: consumer, asleep })
}

/// The end that sends.
pub struct Sender<T> {
    queue: Producer<T>,
    asleep: Arc<Padded<AtomicBool>>,
    wake: Box<dyn Fn() + Send>,
}

impl<T> Sender<T> {
    /// Queues a message, and wakes the receiver if it sleeps. Gives the message back when the queue is full.
    pub fn send(&mut self, message: T) -> Result<(), T> {
        self.queue.push(message).map_err(|PushError::Full(message)| message)?;
        fence(Ordering::SeqCst);
        if self.asleep.0.swap(false, Ordering::Relaxed) {
            (self.wake)();
        }
        Ok(())
    }
}

/// The end that receives, and that sleeps.
pub struct Receiver<T> {
    queue: Consumer<T>,
    asleep: Arc<Padded<AtomicBool>>,
}

impl<T> Receiver<T> {
    /// The oldest message, if any.
    pub fn receive(&mut self) -> Option<T> {
        self.queue.pop().ok()
    }

    /// To be called before sleeping: true says that every later message will wake. False says that one is there.
    pub fn fall_asleep(&mut self) -> bool {
        self.asleep.0.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// To be called after sleeping, so that messages to one who is awake cost no wake-up.
    pub fn wake_up(&mut self) {
        self.asleep.0.swap(false, Ordering::Relaxed);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn keeps_order_and_its_bound() {
        let (mut sender, mut receiver) = mailbox(2, || ());
        assert_eq!(receiver.receive(), None);
        assert_eq!([sender.send(1), sender.send(2), sender.send(3)], [Ok(()), Ok(()), Err(3)]);
        assert_eq!([receiver.receive(), receiver.receive(), receiver.receive()], [Some(1), Some(2), None]);
    }

    #[test]
    fn wakes_a_sleeper_once_and_nobody_else() {
        let (woken, wakes) = mpsc::channel();
        let (mut sender, mut receiver) = mailbox(4, move || woken.send(()).unwrap());
        sender.send(Command::Stop).unwrap();
        assert!(!receiver.fall_asleep(), "a command is there");
        assert!(matches!(receiver.receive(), Some(Command::Stop)));
        assert!(receiver.fall_asleep());
        assert_eq!(wakes.try_iter().count(), 0);
        sender.send(Command::Inject(Failure::Stall)).unwrap();
        sender.send(Command::Stop).unwrap();
        assert_eq!(wakes.try_iter().count(), 1);
        receiver.wake_up();
        sender.send(Command::Drain { within: Duration::ZERO }).unwrap();
        assert_eq!(wakes.try_iter().count(), 0);
        assert_eq!(std::iter::from_fn(|| receiver.receive()).count(), 3);
    }
}
