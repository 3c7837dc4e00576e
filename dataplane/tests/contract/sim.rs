//! The scenarios on the simulator: as the kernel behaves, and with the faults that the contract allows for.

use crate::harness::Harness;
use crate::scenarios::{self, each_scenario};
use dataplane::buf::Pool;
use dataplane::sim::random::ALWAYS;
use dataplane::sim::{Fault, FaultPlan, SimIo};

struct OnSim(FaultPlan);

impl Harness for OnSim {
    type Io = SimIo;

    fn start(&mut self) -> SimIo {
        SimIo::new(self.0.clone())
    }
    fn finish(&mut self, io: SimIo, _: &mut Pool) {
        assert_eq!(io.open_descriptors(), 0);
    }
    fn exhaust_descriptors(&mut self, io: &mut SimIo) -> bool {
        io.descriptor_limit = io.open_descriptors();
        true
    }
    fn relieve_descriptors(&mut self, io: &mut SimIo) {
        io.descriptor_limit = 1024;
    }
}

/// What may happen to a scenario that expects short texts whole and an accept that goes on.
const ALLOWED: [Fault; 6] = [
    Fault::LateCompletion,
    Fault::QueueFull,
    Fault::Latency,
    Fault::Stall,
    Fault::CancelLate,
    Fault::ReadAhead,
];

macro_rules! on_sim {
    ($scenario:ident) => {
        #[test]
        fn $scenario() {
            scenarios::$scenario(&mut OnSim(FaultPlan::calm(0)));
            for seed in 0..16 {
                let plan = ALLOWED
                    .into_iter()
                    .fold(FaultPlan::calm(seed), |plan, fault| plan.with(fault, ALWAYS / 3));
                println!("seed {seed}");
                scenarios::$scenario(&mut OnSim(plan));
            }
        }
    };
}
each_scenario!(on_sim);
