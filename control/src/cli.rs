//! The command line: what each call asks for.

use crate::admin::commands::{Part, Where, Which};
use crate::admin::drain::Asked as DrainAsked;
use crate::admin::{Asked, Name};
use crate::doctor::{Profile, Question};
use crate::exit::Exit;
use crate::top::Asked as TopAsked;
use clap::{Parser, Subcommand};
use dataplane::cluster::eligible::Admin;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version,
    about = "A reverse proxy and load balancer on io_uring.",
    long_about = "A reverse proxy and load balancer on io_uring.\n\n\
        Without a command it runs the built-in demo: http://127.0.0.1:8080/ balanced over three origins of its own.",
    after_help = "Signals: SIGTERM and SIGQUIT finish what runs, then exit (a second one ends at once); SIGINT ends at \
        once; SIGHUP reloads the configuration; SIGUSR1 reopens log files; SIGUSR2 upgrades the program.\n\
        Exit codes: 0 clean, 1 the configuration is wrong (or doctor --strict found something), 2 the command line is wrong, 3 the machine cannot run it, \
        69 the running process cannot be reached, 70 an internal fault.",
    disable_help_subcommand = true
)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run a configuration
    Run {
        /// The configuration (TOML)
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration: every problem with its line and column; exit 0 if there is no error, else 1
    Check {
        /// The configuration (TOML)
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Print the problems as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read the machine: what falls short for a proxy, or for a configuration, and the command that mends it. Changes nothing
    Doctor {
        /// A configuration whose needs are to be met
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// What the machine should be good at
        #[arg(long, value_enum, default_value_t = Profile::Latency)]
        profile: Profile,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
        /// Exit 1 if anything falls short
        #[arg(long)]
        strict: bool,
    },
    /// Ask the running process for its clusters and endpoints: state, health, links, and the ports that they have; or for its
    /// listeners, routes, shards or limits
    Status {
        /// What is asked for
        #[arg(value_enum, default_value_t, value_name = "PART")]
        part: Part,
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// List the connections of clients, with what they do and where they go; or close one
    Connections {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Print the configuration that runs, changes made at run time included, as a file that another process can run
    Export {
        #[command(flatten)]
        at: Where,
    },
    /// Show what was changed at run time and is not in the file
    Drift {
        /// Go back to what the file says
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Have the running process read its file anew: what changed follows, what did not is left alone, and an invalid file changes
    /// nothing. Exit 1 if it is wrong
    Reload {
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Have the program's file, which may be another by now, take the place of the running process: it goes on with everything that
    /// listens, and the process before it finishes what it has. If it does not become ready, nothing changes: exit 1
    Upgrade {
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Show what a reload to FILE would change in the running process, object by object, and what it would do to which
    /// connections; changes nothing. Exit 1 if FILE is wrong
    Plan {
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Set what an endpoint is to do: ready, drain (keeps sticky clients, gets no others) or maint (gets none)
    Set {
        /// Which endpoint, as app/one
        #[arg(value_name = "CLUSTER/ENDPOINT", value_parser = endpoint_name)]
        name: Name,
        /// ready, drain or maint
        #[arg(value_parser = admin_state)]
        state: Admin,
        #[command(flatten)]
        at: Where,
    },
    /// Send connections away, of the whole node or of a part of it, and take no new ones; what is under way may end. Says how far
    /// it is
    Drain {
        #[command(flatten)]
        asked: DrainAsked,
        /// Stay until nothing is left, and say how far it is
        #[arg(long, conflicts_with = "abort")]
        wait: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Make one health check of an endpoint, by the running process or, with -c alone, by this one; print the exact bytes
    /// both ways and the verdict. Exit 1 if it failed
    Probe {
        /// Which endpoint, as app/one
        #[arg(value_name = "CLUSTER/ENDPOINT", value_parser = endpoint_name)]
        name: Name,
        #[command(flatten)]
        at: Where,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where a request, or a connection to a tcp listener, would go, and why, by what the running process knows now: listener, route, cluster, endpoints.
    /// Nothing is sent
    Explain {
        #[command(flatten)]
        asked: Asked,
        #[command(flatten)]
        at: Where,
        /// Print what the API says
        #[arg(long)]
        json: bool,
    },
    /// Watch the running process in a terminal: traffic, clusters, endpoints, errors, shards, limits and events, once a second
    Top {
        #[command(flatten)]
        asked: TopAsked,
        #[command(flatten)]
        at: Where,
    },
}

fn admin_state(text: &str) -> Result<Admin, String> {
    let found = Admin::ALL.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| "one of ready, drain and maint".to_owned())
}

fn endpoint_name(text: &str) -> Result<Name, String> {
    Name::parse(text).ok_or_else(|| "an endpoint is named as CLUSTER/ENDPOINT".to_owned())
}

/// What to do, or how to end at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    Demo,
    Run {
        config: PathBuf,
    },
    Check {
        config: PathBuf,
        json: bool,
    },
    Doctor(Question),
    Connections {
        which: Which,
        at: Where,
        json: bool,
    },
    Export {
        at: Where,
    },
    Drift {
        forget: bool,
        at: Where,
        json: bool,
    },
    Status {
        part: Part,
        at: Where,
        json: bool,
    },
    Reload {
        at: Where,
        json: bool,
    },
    Upgrade {
        at: Where,
        json: bool,
    },
    Plan {
        at: Where,
        json: bool,
    },
    Set {
        name: Name,
        state: Admin,
        at: Where,
    },
    Probe {
        name: Name,
        at: Where,
        json: bool,
    },
    Drain {
        asked: DrainAsked,
        wait: bool,
        at: Where,
    },
    Explain {
        asked: Asked,
        at: Where,
        json: bool,
    },
    Top {
        asked: TopAsked,
        at: Where,
    },
    /// Help, the version, or what is wrong with the line, was printed.
    Done(Exit),
}

/// Reads the command line. Prints help, version and mistakes itself.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Call {
    match Line::try_parse_from(args) {
        Ok(Line { command: None }) => Call::Demo,
        Ok(Line { command: Some(Command::Run { config }) }) => Call::Run { config },
        Ok(Line { command: Some(Command::Check { config, json }) }) => Call::Check { config, json },
        Ok(Line { command: Some(Command::Doctor { config, profile, json, strict }) }) => {
            Call::Doctor(Question { config, profile, json, strict })
        }
        Ok(Line { command: Some(Command::Status { part, at, json }) }) => Call::Status { part, at, json },
        Ok(Line { command: Some(Command::Export { at }) }) => Call::Export { at },
        Ok(Line { command: Some(Command::Drift { forget, at, json }) }) => Call::Drift { forget, at, json },
        Ok(Line { command: Some(Command::Connections { which, at, json }) }) => {
            Call::Connections { which, at, json }
        }
        Ok(Line { command: Some(Command::Reload { at, json }) }) => Call::Reload { at, json },
        Ok(Line { command: Some(Command::Upgrade { at, json }) }) => Call::Upgrade { at, json },
        Ok(Line { command: Some(Command::Plan { at, json }) }) => match at.config {
            Some(_) => Call::Plan { at, json },
            None => {
                complain("`ringway plan` needs -c FILE");
                Call::Done(Exit::CommandLine)
            }
        },
        Ok(Line { command: Some(Command::Set { name, state, at }) }) => Call::Set { name, state, at },
        Ok(Line { command: Some(Command::Drain { asked, wait, at }) }) => match asked.read() {
            Ok(_) => Call::Drain { asked, wait, at },
            Err(what) => {
                complain(&what);
                Call::Done(Exit::CommandLine)
            }
        },
        Ok(Line { command: Some(Command::Probe { name, at, json }) }) => Call::Probe { name, at, json },
        Ok(Line { command: Some(Command::Explain { asked, at, json }) }) => Call::Explain { asked, at, json },
        Ok(Line { command: Some(Command::Top { asked, at }) }) => Call::Top { asked, at },
        Err(told) => {
            let _ = told.print();
            Call::Done(if told.use_stderr() { Exit::CommandLine } else { Exit::Clean })
        }
    }
}

/// One line on standard error, for what ends the process before it has a log.
pub fn complain(what: &str) {
    let _ = std::io::stderr().lock().write_all(format!("ringway: {what}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn call(line: &str) -> Call {
        read(std::iter::once("ringway").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_grammar_holds() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
    }

    #[test]
    fn calls() {
        assert_eq!(call(""), Call::Demo);
        assert_eq!(call("run -c a.toml"), Call::Run { config: "a.toml".into() });
        assert_eq!(call("run --config=a.toml"), Call::Run { config: "a.toml".into() });
        assert_eq!(call("check -c a.toml"), Call::Check { config: "a.toml".into(), json: false });
        assert_eq!(call("check --json -c a.toml"), Call::Check { config: "a.toml".into(), json: true });
        let question = |config: Option<&str>, profile, json, strict| {
            Call::Doctor(Question { config: config.map(PathBuf::from), profile, json, strict })
        };
        assert_eq!(call("doctor"), question(None, Profile::Latency, false, false));
        assert_eq!(
            call("doctor -c a.toml --profile idle --json --strict"),
            question(Some("a.toml"), Profile::Idle, true, true)
        );
        let at = |admin: Option<&str>| Where { admin: admin.map(str::to_owned), ..Where::default() };
        let name = Name { cluster: "app".to_owned(), endpoint: "unix:/run/x".to_owned() };
        assert_eq!(call("status"), Call::Status { part: Part::Clusters, at: at(None), json: false });
        assert_eq!(
            call("status limits --json"),
            Call::Status { part: Part::Limits, at: at(None), json: true }
        );
        let which = Which { source: Some("10.0.0.0/8".to_owned()), limit: Some(5), ..Which::default() };
        assert_eq!(
            call("connections --source 10.0.0.0/8 --limit 5"),
            Call::Connections { which, at: at(None), json: false }
        );
        assert_eq!(
            call("set app/unix:/run/x drain --admin 127.0.0.1:1"),
            Call::Set { name: name.clone(), state: Admin::Drain, at: at(Some("127.0.0.1:1")) }
        );
        let at = Where { config: Some("a.toml".into()), ..Where::default() };
        assert_eq!(
            call("probe app/unix:/run/x -c a.toml --json"),
            Call::Probe { name, at: at.clone(), json: true }
        );
        assert_eq!(call("plan -c a.toml --json"), Call::Plan { at: at.clone(), json: true });
        assert_eq!(call("upgrade -c a.toml"), Call::Upgrade { at: at.clone(), json: false });
        assert_eq!(call("reload -c a.toml"), Call::Reload { at, json: false });
        let edge = DrainAsked { listener: Some("edge".to_owned()), ..DrainAsked::default() };
        let asked = DrainAsked { window: Some("5s".to_owned()), ..edge.clone() };
        assert_eq!(
            call("drain --listener edge --window 5s --wait"),
            Call::Drain { asked, wait: true, at: Where::default() }
        );
        let asked = DrainAsked { abort: true, ..edge };
        assert_eq!(
            call("drain --abort --listener edge"),
            Call::Drain { asked, wait: false, at: Where::default() }
        );
        let asked = DrainAsked::default();
        assert_eq!(call("drain"), Call::Drain { asked, wait: false, at: Where::default() });
        assert_eq!(call("export"), Call::Export { at: Where::default() });
        assert_eq!(call("drift --forget"), Call::Drift { forget: true, at: Where::default(), json: false });
        let asked = Asked {
            method: Some("GET".to_owned()),
            url: Some("http://a/".to_owned()),
            headers: vec!["x:y".to_owned(), "z:".to_owned()],
            source: Some([1, 2, 3, 4].into()),
            listener: Some("edge".to_owned()),
            sni: None,
            alpn: Vec::new(),
        };
        assert_eq!(
            call("explain GET http://a/ -H x:y --source 1.2.3.4 -H z: --listener edge"),
            Call::Explain { asked, at: Where::default(), json: false }
        );
        assert_eq!(call("doctor --help"), Call::Done(Exit::Clean));
        assert_eq!(call("--version"), Call::Done(Exit::Clean));
        assert_eq!(call("--help"), Call::Done(Exit::Clean));
        assert_eq!(call("run --help"), Call::Done(Exit::Clean));
    }

    #[test]
    fn top_has_an_interval() {
        let asked = TopAsked { every: Some(Duration::from_millis(250)), once: true };
        assert_eq!(call("top --once --every 250ms"), Call::Top { asked, at: Where::default() });
        assert_eq!(call("top"), Call::Top { asked: TopAsked::default(), at: Where::default() });
    }

    #[test]
    fn wrong_lines_end_with_2() {
        for line in [
            "run",
            "check",
            "serve",
            "run -c",
            "run -c a b",
            "--nonsense",
            "run -c a -x",
            "help",
            "doctor --profile fast",
            "status everything",
            "connections --limit many",
            "connections --kill 0.1.1 --listener edge",
            "connections --endpoint app/one --cluster app",
            "set app/one",
            "set app/one up",
            "set app ready",
            "probe",
            "probe app/",
            "plan",
            "explain GET",
            "explain",
            "explain --sni a",
            "explain GET / --sni a",
            "explain GET / --source nowhere",
            "drain --node --listener edge",
            "drain --reason boredom",
            "drain --cluster app --window 5s",
            "drain --abort --wait",
            "top --every 1ms",
            "top --every often",
        ] {
            assert_eq!(call(line), Call::Done(Exit::CommandLine), "{line}");
        }
    }
}
