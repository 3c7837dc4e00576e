//! The ringway process around the data path: command line, configuration, logs, signals.

pub mod admin;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod doctor;
mod drains;
mod endpoints;
mod events;
pub mod exit;
mod failing;
pub mod health;
mod inherited;
mod locked;
pub mod log;
mod maintenance;
mod metrics;
mod outage;
pub mod ports;
mod pressure;
mod process;
mod ready;
mod reload;
pub mod run;
pub mod top;
pub mod traces;
mod upgrade;
mod watchdog;
