//! From the configuration to what the log thread is asked for.

use crate::config::{self, LogFormat, LogLevel};
use crate::log;

/// What the log thread is asked for.
pub(super) fn log_settings_of(process: &config::ProcessSettings) -> log::Settings {
    let access = |asked: &config::AccessLog| log::AccessLog {
        to: asked.to.clone(),
        format: asked.format.clone(),
        listeners: asked.listeners.clone(),
        sample: asked.sample,
    };
    log::Settings {
        level: match process.log_level {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        },
        format: match process.log_format {
            LogFormat::Text => log::Format::Text,
            LogFormat::Json => log::Format::Json,
        },
        access: process.access_logs.iter().map(access).collect(),
        traces: process.traces.clone(),
    }
}
