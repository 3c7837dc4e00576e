//! `ringway-bench`: measures ringway and its peers from outside. One binary, one module for each command.

mod clock;
mod compare;
mod floor;
mod load;
mod net;
mod origin;
mod setup;
mod slots;
mod sys;
mod upgrade;

use clap::{Parser, Subcommand};

/// Measures ringway and its peers from outside.
#[derive(Debug, Parser)]
#[command(name = "ringway-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs and builds the peers: nginx, HAProxy, sozu, pingora, and the second load generator.
    Setup(setup::Args),
    /// Runs the scenarios over ringway and its peers, in alternation, and writes tables, plots and JSON lines.
    Compare(compare::Args),
    /// Holds a great many idle tunnels, over as many processes as they take, and says what each costs.
    Scale(compare::scale::Args),
    /// Writes docs/performance.md from what `compare` left and from the notes that are kept by hand.
    Report(compare::report::Args),
    /// Offers load to one address and prints one JSON line of what came of it.
    Load(load::Args),
    /// Serves a cheap origin, and prints one JSON line when it listens.
    Origin(origin::Args),
    /// Serves a floor: the least that a proxy of a kind could do. Prints one JSON line when it listens.
    Floor(floor::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup(args) => setup::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Scale(args) => compare::scale::run(&args),
        Command::Report(args) => compare::report::run(args),
        Command::Load(args) => load::run(args),
        Command::Origin(args) => origin::run(args),
        Command::Floor(args) => floor::run(args),
    }
}
