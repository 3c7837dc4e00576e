//! The workload against itself: clients and origins without a proxy between them.

use super::plan::{After, Ending};
use super::*;
use crate::buf::{Pool, PoolSize};
use crate::io::Io;
use crate::sim::{FaultPlan, SimIo};

/// Well-behaved clients and origins: without a proxy every one of them must succeed.
fn polite(seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let (mut requests, mut plans) = (Vec::new(), Vec::new());
    while plans.len() < 50 {
        let mut plan = draw_client(&mut random, &mut requests);
        plan.batches = plan.batches.into_iter().flatten().map(|id| vec![id]).collect();
        (plan.mishap, plan.ending) = (None, Ending::Close);
        plans.push(plan);
    }
    for request in &mut requests {
        request.flaw = None;
        request.http10 = false;
        request.answer.misdeed = None;
        request.answer.after = After::Keep;
        // An early answer ends the connection of a client that waits for 100.
        request.answer.early &= !request.expect;
        if let plan::Sending::UntilClose(n) = request.answer.body {
            request.answer.body = plan::Sending::Sized(n);
        }
    }
    for plan in &mut plans {
        for batch in &plan.batches[..plan.batches.len().saturating_sub(1)] {
            let request = &mut requests[batch[0] as usize];
            request.close = false;
        }
    }
    let mut workload = Workload::with(random, Workload::origin_address(0), requests, plans);
    workload.ledger.direct = true;
    workload
}

#[test]
fn clients_and_origins_understand_each_other() {
    let mut tunnels = 0;
    for seed in 0..16 {
        let mut io = SimIo::with_world(FaultPlan::gentle(seed), polite(seed));
        io.world.begin(&mut io.net);
        let mut pool = Pool::new(PoolSize { tiny: 1, small: 1, large: 1 });
        while io.net.now < Mono(400 * SECOND) && !io.world.is_over() {
            let until = Mono(io.net.now.0 + SECOND);
            io.turn(&mut pool, until, &mut Vec::new()).unwrap();
        }
        let now = io.net.now;
        io.world.judge(true, now);
        let ledger = &io.world.ledger;
        assert!(ledger.violations.is_empty(), "seed {seed}: {:#?} {:?}", ledger.violations, ledger.tally);
        assert!(ledger.sent() > 150, "{:?}", ledger.tally);
        tunnels += ledger.tally.get("tunnel").copied().unwrap_or(0);
    }
    assert!(tunnels > 10, "{tunnels}");
}
