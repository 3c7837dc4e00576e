//! A seed's world: clients that ask, origins that answer, flows that do neither, and a director who kills origins.
//!
//! The proxy stands between them; without one (`target` an origin's own address) the same peers talk directly, which
//! is how the workload itself is tested.

mod client;
mod flaws;
mod flow;
mod ledger;
mod message;
mod opening;
mod origin;
mod plan;
mod preface;
#[cfg(test)]
mod tests;

use super::faults::Fault;
use super::io::{World, key};
use super::net::{ListenerId, Net, Owner, SocketId};
use super::random::Random;
use crate::io::{Address, Mono, SocketAddress, UnixName};
use client::{Client, START};
use flow::{FLOWS, FlowCall, FlowClient};
pub use ledger::Ledger;
use ledger::{Exchange, Outcome};
pub(crate) use opening::{FlowRules, ROUTED_NAMES};
use origin::Call;
use plan::{ClientPlan, Request, SECOND, draw_client};

/// Actor numbers: clients from 0, origins and their links from these.
const ORIGINS: u32 = 1_000_000;
const CALLS: u32 = 2_000_000;
const FLOW_CLIENTS: u32 = 500_000;
const FLOW_CALLS: u32 = 2_500_000;
const DIRECTOR: u32 = 3_000_000;

/// Clients of one seed, and the exchanges they plan at least.
pub const CLIENTS: usize = 230;
pub const EXCHANGES: usize = 1_000;
/// Origins of the one cluster, from this port on.
pub const ORIGIN_COUNT: u16 = 3;
/// Behind them those of the cluster of the tcp listener.
pub const FLOW_ORIGIN_COUNT: u16 = 2;
/// And of the one that its routes lead to.
pub const NAMED_ORIGIN_COUNT: u16 = 1;
const ORIGIN_PORT: u16 = 9_000;

#[derive(Debug)]
struct Origin {
    address: SocketAddress,
    listener: Option<ListenerId>,
}

/// All peers of one seed.
#[derive(Debug)]
pub struct Workload {
    pub ledger: Ledger,
    clients: Vec<Client>,
    origins: Vec<Origin>,
    calls: Vec<Call>,
    flow_clients: Vec<FlowClient>,
    flow_calls: Vec<FlowCall>,
    target: SocketAddress,
    flow_target: SocketAddress,
    random: Random,
}

impl Workload {
    /// Draws a seed's clients. They speak to `target`, flows to `flow_target`, from virtual time 0 on.
    pub fn new(seed: u64, target: SocketAddress, flow_target: SocketAddress) -> Self {
        let mut random = Random::new(seed ^ 0x776f_726b);
        let (mut requests, mut plans) = (Vec::new(), Vec::new());
        while plans.len() < CLIENTS || requests.len() < EXCHANGES + EXCHANGES / 4 {
            plans.push(draw_client(&mut random, &mut requests));
        }
        let mut workload = Self::with(random, target, requests, plans);
        let mut random = Random::new(seed ^ 0x666c_6f77);
        let mut openings = Random::new(seed ^ 0x6f70_656e);
        let mut flow = |id| flow::draw(&mut random, opening::draw(&mut openings, id));
        workload.ledger.flows = (0..FLOWS as u32).map(&mut flow).collect();
        workload.flow_clients = (0..FLOWS as u32).map(|id| FlowClient::new(FLOW_CLIENTS + id, id)).collect();
        workload.flow_target = flow_target;
        workload
    }
    fn with(random: Random, target: SocketAddress, requests: Vec<Request>, plans: Vec<ClientPlan>) -> Self {
        let clients = plans.into_iter().zip(0..).map(|(plan, actor)| Client::new(actor, plan)).collect();
        let mut ledger = Ledger::default();
        for request in requests {
            ledger.exchanges.push(Exchange {
                client: 0,
                request,
                arrivals: 0,
                copies: 0,
                upload_done: false,
                outcome: Outcome::Unsent,
                excused: false,
                raced: false,
                mishap: None,
                ended_at: Mono(0),
            });
        }
        let origins = (0..ORIGIN_COUNT + FLOW_ORIGIN_COUNT + NAMED_ORIGIN_COUNT)
            .map(|n| Origin { address: Self::origin_address(n), listener: None });
        Self {
            ledger,
            clients,
            origins: origins.collect(),
            calls: Vec::new(),
            flow_clients: Vec::new(),
            flow_calls: Vec::new(),
            target,
            flow_target: target,
            random,
        }
    }
    /// Where the nth origin listens: the last on a unix socket.
    pub fn origin_at(n: u16) -> Address {
        if n + 1 == ORIGIN_COUNT {
            return UnixName::new(b"/run/origin.sock").expect("a short path").into();
        }
        SocketAddress::new([127, 0, 0, 1].into(), ORIGIN_PORT + n).into()
    }
    /// Where the network keeps the nth origin.
    pub fn origin_address(n: u16) -> SocketAddress {
        key(&Self::origin_at(n))
    }
    /// Opens the origins and starts the clients' clocks.
    pub fn begin(&mut self, net: &mut Net) {
        for n in 0..self.origins.len() {
            self.open_origin(net, n);
        }
        for (actor, client) in self.clients.iter().enumerate() {
            net.timer(actor as u32, Mono(net.now.0 + client.start()), START);
        }
        for (flow, actor) in self.ledger.flows.iter().zip(FLOW_CLIENTS..) {
            net.timer(actor, Mono(net.now.0 + flow.start()), START);
        }
        net.timer(DIRECTOR, Mono(net.now.0 + SECOND), 0);
    }
    fn open_origin(&mut self, net: &mut Net, n: usize) {
        let origin = &mut self.origins[n];
        if origin.listener.is_none() {
            origin.listener = Some(net.listen(origin.address, 256, Owner::Actor(ORIGINS + n as u32)));
        }
    }
    /// The listener goes away and every connection of it is reset.
    fn kill_origin(&mut self, net: &mut Net, n: usize) {
        let Some(listener) = self.origins[n].listener.take() else { return };
        net.close_listener(listener);
        for call in self.calls.iter_mut().filter(|call| call.origin == n) {
            call.peer.leave(net, true);
        }
        for call in self.flow_calls.iter_mut().filter(|call| call.origin == n) {
            call.peer.leave(net, true);
        }
    }
    /// Whether every client has had its conversation.
    pub fn is_over(&self) -> bool {
        self.clients.iter().all(|c| c.done) && self.flow_clients.iter().all(|c| c.done)
    }
    /// Clients whose connection is still open, and since when nothing moved there.
    pub fn unfinished(&self) -> Vec<String> {
        let open = self.clients.iter().enumerate().filter(|(_, c)| !c.done);
        let flows = self.flow_clients.iter().filter(|c| !c.done).map(|c| format!("flow: {c:?}"));
        open.map(|(n, c)| format!("client {n}: {c:?}")).chain(flows).take(5).collect()
    }
    /// Judges the whole run.
    pub fn judge(&mut self, strict: bool, now: Mono) {
        if !self.is_over() {
            for line in self.unfinished() {
                self.ledger.violation(format!("at {now:?} a connection has outlived every deadline: {line}"));
            }
        }
        self.ledger.judge(strict);
    }
}

impl World for Workload {
    fn on_socket(&mut self, net: &mut Net, actor: u32, _: SocketId) {
        let Self { ledger, calls, clients, flow_calls, flow_clients, .. } = self;
        match actor {
            FLOW_CALLS.. => flow_calls[(actor - FLOW_CALLS) as usize].stir(net, ledger),
            CALLS.. => calls[(actor - CALLS) as usize].stir(net, ledger),
            ORIGINS.. => {}
            FLOW_CLIENTS.. => flow_clients[(actor - FLOW_CLIENTS) as usize].stir(net, ledger),
            _ => clients[actor as usize].stir(net, ledger),
        }
    }
    fn on_listener(&mut self, net: &mut Net, actor: u32, listener: ListenerId) {
        let n = (actor - ORIGINS) as usize;
        while n >= usize::from(ORIGIN_COUNT) {
            let actor = FLOW_CALLS + self.flow_calls.len() as u32;
            let Some(socket) = net.accept(listener, Owner::Actor(actor)) else { return };
            let mut call = FlowCall::new(actor, n, socket);
            call.open(net, &mut self.ledger);
            self.flow_calls.push(call);
        }
        loop {
            let call = CALLS + self.calls.len() as u32;
            let Some(socket) = net.accept(listener, Owner::Actor(call)) else { return };
            self.calls.push(Call::new(call, n, socket));
        }
    }
    fn on_timer(&mut self, net: &mut Net, actor: u32, cookie: u64) {
        match actor {
            DIRECTOR => {
                let n = self.random.below(self.origins.len() as u64) as usize;
                if cookie > 0 {
                    self.open_origin(net, cookie as usize - 1);
                } else if net.faults.hit(Fault::OriginDies) {
                    self.kill_origin(net, n);
                    net.timer(DIRECTOR, Mono(net.now.0 + self.random.between(1, 3 * SECOND)), n as u64 + 1);
                }
                if cookie == 0 && !self.is_over() {
                    net.timer(DIRECTOR, Mono(net.now.0 + SECOND), 0);
                }
            }
            call if call >= FLOW_CALLS => {
                self.flow_calls[(call - FLOW_CALLS) as usize].on_timer(net, &mut self.ledger, cookie);
            }
            call if call >= CALLS => {
                self.calls[(call - CALLS) as usize].on_timer(net, &mut self.ledger, cookie);
            }
            client if client >= FLOW_CLIENTS => {
                let (target, ledger) = (self.flow_target, &mut self.ledger);
                let client = &mut self.flow_clients[(client - FLOW_CLIENTS) as usize];
                match cookie {
                    START => client.start(net, ledger, target),
                    _ => client.on_timer(net, ledger, cookie),
                }
            }
            client => {
                let target = self.target;
                self.clients[client as usize].on_timer(net, &mut self.ledger, cookie, target);
            }
        }
    }
}
