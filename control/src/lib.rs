//! The ringway process around the data path: command line, configuration, logs, signals.

pub mod cli;
pub mod config;
pub mod doctor;
pub mod exit;
mod failing;
mod inherited;
pub mod log;
pub mod ports;
mod pressure;
mod ready;
pub mod run;
mod watchdog;
