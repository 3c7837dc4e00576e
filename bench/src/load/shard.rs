//! One executor on one CPU: it opens its connections, begins when all executors are ready, and ends by itself.

use super::line::Watch;
use super::pace::{Pace, SPIN, Start};
use super::plan::{Mode, Plan};
use super::report::{Error, Tally};
use super::{bulk, drive, idle};
use crate::clock::{self, MILLISECOND, SECOND};
use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle, executor,
};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// A request without an answer for so long is an error, and its connection is closed. The same time is given to what is
/// unanswered at the end.
const TIMEOUT_NANOS: u64 = 10 * SECOND;
const WATCHDOG_MILLIS: u64 = 100;
/// Memory registered with each ring; sockets do not use it.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// What a read takes at most, for all connections of an executor.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often the scheduler looks at the rings while tasks keep it busy.
const PREEMPT: Duration = Duration::from_millis(1);

/// What the executors share.
#[derive(Debug)]
pub(super) struct Shared {
    ready: Barrier,
    ended: Arc<AtomicBool>,
    /// Requests answered, by executor.
    answered: Vec<AtomicU64>,
    /// Idle connections that are open and answered.
    pub(super) held: AtomicU32,
}

impl Shared {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            ready: Barrier::new(plan.cpus.len()),
            ended: Arc::new(AtomicBool::new(false)),
            answered: plan.cpus.iter().map(|_| AtomicU64::new(0)).collect(),
            held: AtomicU32::new(0),
        }
    }

    /// Whoever holds our standard input ends the run by closing it.
    pub(super) fn end_with_stdin(&self) {
        let ended = Arc::clone(&self.ended);
        std::thread::spawn(move || {
            // An error ends it as well.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            ended.store(true, Ordering::Relaxed);
        });
    }

    fn answered(&self) -> u64 {
        self.answered.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

/// What the connections of one executor share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) tally: RefCell<Tally>,
    pub(super) buffer: RefCell<Vec<u8>>,
    pub(super) watches: RefCell<Vec<Rc<Watch>>>,
    queue: TaskQueueHandle,
    sources: Cell<usize>,
    /// The measured window.
    pub(super) from: Cell<u64>,
    pub(super) until: Cell<u64>,
    pace: RefCell<Option<Rc<Pace>>>,
}

impl Desk {
    /// The next request of a connection, or `None` when the run is over.
    pub(super) async fn next(&self) -> Option<Start> {
        let pace = self.pace.borrow().clone();
        match pace {
            Some(pace) => pace.next().await,
            None => {
                let now = clock::now();
                (now < self.until.get()).then_some(Start { scheduled: now, late: false })
            }
        }
    }

    /// What began in the window counts, however long it took.
    pub(super) fn counts(&self, at: u64) -> bool {
        (self.from.get()..self.until.get()).contains(&at)
    }

    pub(super) fn source(&self) -> Option<Ipv4Addr> {
        let next = self.sources.get();
        self.sources.set(next.wrapping_add(1));
        let sources = &self.plan.sources;
        (!sources.is_empty()).then(|| sources[next % sources.len()])
    }

    pub(super) fn watch(&self) -> Rc<Watch> {
        let watch = Rc::new(Watch::default());
        self.watches.borrow_mut().push(Rc::clone(&watch));
        watch
    }

    pub(super) fn spawn<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> glommio::Task<T> {
        // The queue was made by this executor and is never removed.
        glommio::spawn_local_into(task, self.queue).unwrap_or_else(|_| unreachable!("the queue is ours"))
    }
}

pub(super) fn spawn(
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    index: usize,
) -> anyhow::Result<ExecutorJoinHandle<Tally>> {
    let cpu = plan.cpus[index];
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .spin_before_park(if plan.rate.is_some() { SPIN } else { Duration::ZERO })
        .name("load")
        .spawn(move || run(plan, shared, index))
        .map_err(|error| anyhow::anyhow!("an executor on CPU {cpu}: {error}"))
}

fn nanos(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}

async fn run(plan: Arc<Plan>, shared: Arc<Shared>, index: usize) -> Tally {
    // The rings of a queue to which latency matters interrupt tasks that do not end, like the pacer.
    let queue = executor().create_task_queue(Shares::default(), Latency::Matters(PREEMPT), "load");
    let desk = Rc::new(Desk {
        shared,
        index,
        tally: RefCell::new(Tally::new()),
        buffer: RefCell::new(vec![0; BUFFER_BYTES]),
        watches: RefCell::new(Vec::new()),
        queue,
        sources: Cell::new(index),
        from: Cell::new(u64::MAX),
        until: Cell::new(u64::MAX),
        pace: RefCell::new(None),
        plan,
    });
    let watchdog = desk.spawn(watchdog(Rc::clone(&desk)));
    let held = idle::open(&desk).await;
    desk.shared.ready.wait();
    begin(&desk);
    let meter = desk.spawn(meter(Rc::clone(&desk)));
    if desk.plan.mode == Mode::Idle {
        idle::hold(&desk).await;
    } else {
        work(&desk).await;
    }
    drop(held);
    meter.await;
    watchdog.cancel().await;
    desk.tally.take()
}

/// Sets the window and the schedule, from now.
fn begin(desk: &Desk) {
    let plan = &desk.plan;
    let (now, executors) = (clock::now(), plan.cpus.len());
    desk.from.set(now + nanos(plan.warm_up));
    desk.until.set(desk.from.get() + nanos(plan.seconds));
    if let Some(rate) = plan.rate {
        #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
        let (executors, index) = (executors as f64, desk.index as f64);
        // The executors take turns.
        let start = now + nanos(index / rate);
        let pace = Pace::new(start, 1e9 * executors / rate, desk.until.get());
        *desk.pace.borrow_mut() = Some(Rc::new(pace));
    }
}

async fn work(desk: &Rc<Desk>) {
    let connections = desk.plan.share(desk.plan.active, desk.index);
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let desk_of_task = Rc::clone(desk);
        tasks.push(match desk.plan.mode {
            Mode::Stream => desk.spawn(bulk::stream(desk_of_task)),
            _ => desk.spawn(drive::drive(desk_of_task)),
        });
    }
    let pace = desk.pace.borrow().clone();
    if let Some(pace) = &pace {
        let pacer = Rc::clone(pace);
        desk.spawn(async move { pacer.run().await }).await;
    }
    for task in tasks {
        task.await;
    }
    if let Some(pace) = pace {
        desk.tally.borrow_mut().fail_many(Error::Timeout, pace.missed());
    }
}

/// Sleeps until an instant that may move towards us.
async fn sleep_until(at: &Cell<u64>) {
    while let left @ 1.. = at.get().saturating_sub(clock::now()) {
        glommio::timer::sleep(Duration::from_nanos(left.min(WATCHDOG_MILLIS * MILLISECOND))).await;
    }
}

/// Measures what this thread itself costs during the window.
async fn meter(desk: Rc<Desk>) {
    // The executor's account begins anew with each look at it.
    let read = || (clock::now(), clock::thread_cpu(), executor().executor_stats().total_runtime());
    sleep_until(&desk.from).await;
    let before = read();
    sleep_until(&desk.until).await;
    let after = read();
    let (wall, cpu) = (after.0 - before.0, after.1 - before.1);
    // A closed loop parks when it has nothing to do. An open one spins, and what it spins the executor leaves out of its own
    // account.
    let spent = u64::try_from(after.2.as_nanos()).unwrap_or(u64::MAX);
    let busy = if desk.plan.rate.is_some() { spent } else { cpu };
    desk.tally.borrow_mut().measured(wall, cpu, busy);
}

/// Gives up what waits too long, and says each second how it goes.
#[expect(clippy::print_stderr, reason = "progress, for who watches")]
async fn watchdog(desk: Rc<Desk>) {
    let (mut said_at, mut said) = (clock::now(), 0);
    loop {
        glommio::timer::sleep(Duration::from_millis(WATCHDOG_MILLIS)).await;
        let now = clock::now();
        let over = now > desk.until.get().saturating_add(TIMEOUT_NANOS);
        for watch in desk.watches.borrow().iter() {
            let began = watch.began.get();
            if over || (began != 0 && now.saturating_sub(began) > TIMEOUT_NANOS) {
                watch.abort();
            }
        }
        desk.shared.answered[desk.index].store(desk.tally.borrow().answered(), Ordering::Relaxed);
        if desk.shared.ended.load(Ordering::Relaxed) {
            desk.from.set(desk.from.get().min(now));
            desk.until.set(desk.until.get().min(now));
        }
        if desk.index == 0 && now - said_at >= SECOND && desk.from.get() != u64::MAX {
            let answered = desk.shared.answered();
            let rps = (answered - said) * 1000 / ((now - said_at) / MILLISECOND).max(1);
            let warm = if now < desk.from.get() { " (warm-up)" } else { "" };
            eprintln!("{rps} requests/s{warm}");
            (said_at, said) = (now, answered);
        }
    }
}
