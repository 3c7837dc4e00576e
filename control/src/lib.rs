//! The ringway process around the data path: command line, configuration, logs, signals.

pub mod config;
