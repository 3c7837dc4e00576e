//! The binary `ringway`: one call of the command line, one exit code.

use control::cli::{self, Call};
use control::exit::Exit;
use control::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic of control is a fault of ours like a shard's; its text was told by the panic hook.
    let exit = std::panic::catch_unwind(|| match cli::read(std::env::args_os()) {
        Call::Demo => run::demo(),
        Call::Run { config } => run::run(&config),
        Call::Check { config, json } => run::check(&config, json),
        Call::Doctor(question) => run::doctor(&question),
        Call::Status { part, at, json } => run::status(part, &at, json),
        Call::Export { at } => run::export(&at),
        Call::Drift { forget, at, json } => run::drift(forget, &at, json),
        Call::Connections { which, at, json } => run::connections(&which, &at, json),
        Call::Reload { at, json } => run::reload(&at, json),
        Call::Upgrade { at, json } => run::upgrade(&at, json),
        Call::Plan { at, json } => run::plan(&at, json),
        Call::Set { name, state, at } => run::set(&name, state, &at),
        Call::Probe { name, at, json } => run::probe(&name, &at, json),
        Call::Drain { asked, wait, at } => run::drain(&asked, wait, &at),
        Call::Explain { asked, at, json } => run::explain(&asked, &at, json),
        Call::Top { asked, at } => run::top(&asked, &at),
        Call::Done(exit) => exit,
    });
    exit.unwrap_or(Exit::Internal).into()
}
