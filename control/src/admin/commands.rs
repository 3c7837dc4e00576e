//! `ringway status`, `connections`, `reload`, `plan`, `set`, `explain` and `probe`: what they ask the running process, and how they show it.

use super::client::{self, Reply, segment};
use super::guard::Token;
use super::{Asked, Name, api, connections, table};
use crate::cli::complain;
use crate::config::{self, Environment, Loaded};
use crate::endpoints;
use crate::exit::Exit;
use crate::health::probe;
use crate::ready;
use crate::reload::lines;
use dataplane::cluster::eligible::Admin;
use dataplane::io::Address;
use dataplane::limits;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::PathBuf;

/// How a command finds the running process.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct Where {
    /// The running process's admin address: 127.0.0.1:9901 or unix:PATH [default: RINGWAY_ADMIN, or FILE's, or 127.0.0.1:9901]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// A configuration whose admin.address says it
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file with its token, where it asks for one [default: RINGWAY_TOKEN_FILE, or what FILE says with its address]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What `ringway status` tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Part {
    #[default]
    Clusters,
    Listeners,
    Routes,
    Shards,
    /// Every limit that is counted, the nearest to its bound first.
    Limits,
}

impl Part {
    fn path(self) -> &'static str {
        match self {
            Self::Clusters => "/v1/clusters",
            Self::Listeners => "/v1/listeners",
            Self::Routes => "/v1/routes",
            Self::Shards => "/v1/shards",
            Self::Limits => "/v1/limits",
        }
    }
}

/// Which connections `ringway connections` shows, or closes.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct Which {
    /// Those of a listener
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Those that go to a cluster now
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Those that go to an endpoint now, as app/one
    #[arg(long, value_name = "CLUSTER/ENDPOINT", conflicts_with = "cluster")]
    pub endpoint: Option<String>,
    /// Those of clients in a network, as 10.0.0.0/8
    #[arg(long, value_name = "NETWORK")]
    pub source: Option<String>,
    /// How many at most [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u16>,
    /// Those behind the last page, which said this
    #[arg(long, value_name = "NEXT")]
    pub after: Option<String>,
    /// Close the one with this ID, at once
    #[arg(long, value_name = "ID", conflicts_with_all = ["listener", "cluster", "endpoint", "source", "limit", "after"])]
    pub kill: Option<String>,
}

impl Which {
    fn path(&self) -> Result<String, Exit> {
        if let Some(id) = &self.kill {
            return Ok(format!("/v1/connections/{}", segment(id)));
        }
        let endpoint = match self.endpoint.as_deref().map(|text| (text, Name::parse(text))) {
            Some((text, None)) => {
                complain(&format!("{text:?}: an endpoint is named as CLUSTER/ENDPOINT"));
                return Err(Exit::CommandLine);
            }
            Some((_, name)) => name,
            None => None,
        };
        let (of_endpoint, name) = endpoint.map(|name| (name.cluster, name.endpoint)).unzip();
        let values = [
            ("listener", self.listener.clone()),
            ("cluster", self.cluster.clone().or(of_endpoint)),
            ("endpoint", name),
            ("source", self.source.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("after", self.after.clone()),
        ];
        let pairs = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", segment(&value))).collect();
        Ok(format!("/v1/connections?{}", pairs.join("&")))
    }
}

/// Where the demo listens, and who says nothing else looks.
const DEFAULT: &str = "127.0.0.1:9901";

/// What [`Where`] comes to.
struct Found {
    address: Option<Address>,
    token: Option<Token>,
    /// Of `config`, where that was read.
    loaded: Option<Loaded>,
}

impl Where {
    /// `needs_file` reads the configuration even where the address is said otherwise.
    fn find(&self, environment: &Environment, needs_file: bool) -> Result<Found, Exit> {
        let said = self.admin.clone().map(|text| ("--admin", text));
        let said = said.or_else(|| Some(("RINGWAY_ADMIN", std::env::var("RINGWAY_ADMIN").ok()?)));
        let mut loaded = None;
        if let Some(file) = &self.config
            && (needs_file || said.is_none())
        {
            loaded = Some(config::load(file, environment).map_err(|report| {
                complain(&format!("the configuration is wrong:\n{}", report.to_string().trim_end()));
                Exit::Configuration
            })?);
        }
        let address = match (said, &loaded) {
            (Some((from, text)), _) => Some(address(from, &text)?),
            (None, Some(loaded)) => loaded.process.admin.as_ref().map(|admin| admin.address.clone()),
            (None, None) => Some(address("the default", DEFAULT)?),
        };
        let of_file = || loaded.as_ref()?.process.admin.as_ref()?.guard.token.clone();
        let token = self.token()?.or_else(of_file);
        Ok(Found { address, token, loaded })
    }

    /// Whom to ask, for those who ask again and again; otherwise it was said why nobody can be asked.
    pub(crate) fn found(&self, environment: &Environment) -> Result<client::Found, Exit> {
        let Found { address, token, .. } = self.find(environment, false)?;
        let found = address.map(|address| client::Found { address, token });
        found.ok_or_else(not_asked)
    }

    /// What the file that is said has in it.
    fn token(&self) -> Result<Option<Token>, Exit> {
        let file =
            self.token_file.clone().or_else(|| std::env::var_os("RINGWAY_TOKEN_FILE").map(PathBuf::from));
        let Some(file) = file else { return Ok(None) };
        let cannot = |why: &str| {
            complain(&format!("the token of {}: {why}", file.display()));
            Exit::CommandLine
        };
        let most = u64::try_from(limits::ADMIN_TOKEN_BYTES.max).unwrap_or(u64::MAX) + 2;
        let mut text = String::new();
        let read = std::fs::File::open(&file).and_then(|file| file.take(most).read_to_string(&mut text));
        read.map_err(|error| cannot(&error.to_string()))?;
        let token = Token::new(text.trim_end_matches(['\r', '\n']));
        token.map(Some).ok_or_else(|| cannot("it is empty, or not printable ASCII without spaces"))
    }

    /// Asks the running process, and says where that is; says so where it cannot be reached.
    fn ask(
        &self,
        environment: &Environment,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<(Reply, Address), Exit> {
        let Found { address, token, .. } = self.find(environment, false)?;
        let address = address.ok_or_else(not_asked)?;
        match client::ask(&address, token.as_ref(), method, path, body) {
            Ok(reply) => Ok((reply, address)),
            Err(why) => Err(unreachable(&address, &why)),
        }
    }
}

impl Where {
    /// The answer of a process that does what it is asked; otherwise it was said why it does not.
    fn ask_well(
        &self,
        environment: &Environment,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<(Reply, Address), Exit> {
        let (reply, address) = self.ask(environment, method, path, body)?;
        if reply.status == 200 { Ok((reply, address)) } else { Err(refused(&reply)) }
    }
    /// What the process answers in JSON; otherwise it was said why there is nothing.
    pub(super) fn ask_json(
        &self,
        environment: &Environment,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Value, Exit> {
        let (reply, address) = self.ask_well(environment, method, path, body)?;
        reply.read().map_err(|why| unreachable(&address, &why))
    }
    /// The same of a question that may find nobody, without a word.
    pub(super) fn try_json(&self, environment: &Environment, path: &str) -> Option<Value> {
        let Found { address, token, .. } = self.find(environment, false).ok()?;
        let reply = client::ask(&address?, token.as_ref(), "GET", path, None).ok()?;
        reply.read().ok().filter(|_| reply.status == 200)
    }
}

fn address(from: &str, text: &str) -> Result<Address, Exit> {
    config::admin_address(text).map_err(|what| {
        complain(&format!("{from}: {what}"));
        Exit::CommandLine
    })
}

fn not_asked() -> Exit {
    complain("the configuration has no [admin], so the running process cannot be asked");
    Exit::Unreachable
}

fn unreachable(address: &Address, why: &str) -> Exit {
    complain(&format!("no ringway answers at {address}: {why}"));
    Exit::Unreachable
}

/// The process refused: its words, and the exit code for them.
fn refused(reply: &Reply) -> Exit {
    let body = reply.read::<Value>().unwrap_or_default();
    complain(body.get("error").and_then(Value::as_str).unwrap_or("it refused"));
    match reply.status {
        400 | 404 => Exit::CommandLine,
        // A conflict with what goes on there: the question was right, and the process could be asked.
        401 | 409 => Exit::Configuration,
        _ => Exit::Unreachable,
    }
}

/// Prints what became of an answer in JSON, or the answer itself.
fn show(asked: Result<(Reply, Address), Exit>, as_json: bool, text: impl FnOnce(&Value) -> String) -> Exit {
    print(asked, |reply| reply.read().map(|body: Value| if as_json { body.to_string() } else { text(&body) }))
}

/// Prints the text that was made of an answer.
fn print(asked: Result<(Reply, Address), Exit>, text: impl FnOnce(&Reply) -> Result<String, String>) -> Exit {
    let (reply, address) = match asked {
        Ok(asked) => asked,
        Err(exit) => return exit,
    };
    match text(&reply) {
        Ok(text) => {
            ready::print(text.trim_end());
            Exit::Clean
        }
        Err(why) => unreachable(&address, &why),
    }
}

fn path_of(name: &Name, then: &str) -> String {
    format!("/v1/clusters/{}/endpoints/{}{then}", segment(&name.cluster), segment(&name.endpoint))
}

/// `ringway set`.
pub fn set(name: &Name, state: Admin, at: &Where, environment: &Environment) -> Exit {
    let body = json!({ "state": state.name() }).to_string();
    print(at.ask_well(environment, "PUT", &path_of(name, "/state"), Some(&body)), |_| {
        Ok(format!("{}/{} is {}", name.cluster, name.endpoint, state.name()))
    })
}

/// `ringway connections`.
pub fn connections(which: &Which, at: &Where, as_json: bool, environment: &Environment) -> Exit {
    let path = match which.path() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let method = if which.kill.is_some() { "DELETE" } else { "GET" };
    show(at.ask_well(environment, method, &path, None), as_json, |body| match &which.kill {
        Some(_) => {
            let word = |key: &str| body[key].as_str().unwrap_or("-").to_owned();
            format!("{} of {} at listener {} is closed", word("id"), word("peer"), word("listener"))
        }
        None => connections::text(body),
    })
}

/// `ringway status`.
pub fn status(part: Part, at: &Where, as_json: bool, environment: &Environment) -> Exit {
    print(at.ask_well(environment, "GET", part.path(), None), |reply| {
        if as_json {
            reply.text().map(str::to_owned)
        } else if part != Part::Clusters {
            reply.read().map(|body: Value| table::part(part, &body))
        } else {
            reply.read().map(|shown| table::clusters(&shown))
        }
    })
}

/// `ringway export`.
pub fn export(at: &Where, environment: &Environment) -> Exit {
    print(at.ask_well(environment, "GET", "/v1/export", None), |reply| reply.text().map(str::to_owned))
}

/// `ringway drift`: what was changed at run time, or back to the file.
pub fn drift(forget: bool, at: &Where, as_json: bool, environment: &Environment) -> Exit {
    if forget {
        return match at.ask(environment, "DELETE", "/v1/drift", None) {
            Ok((reply, address)) => changes(&reply, &address, as_json),
            Err(exit) => exit,
        };
    }
    show(at.ask_well(environment, "GET", "/v1/drift", None), as_json, table::drift)
}

/// `ringway reload`. Exit 1 where the file is wrong, or cannot be gone over to.
pub fn reload(at: &Where, as_json: bool, environment: &Environment) -> Exit {
    match at.ask(environment, "POST", "/v1/reload", None) {
        Ok((reply, address)) => changes(&reply, &address, as_json),
        Err(exit) => exit,
    }
}

/// `ringway explain`.
pub fn explain(asked: &Asked, at: &Where, as_json: bool, environment: &Environment) -> Exit {
    let body = json!(asked).to_string();
    show(at.ask_well(environment, "POST", "/v1/explain", Some(&body)), as_json, |body| {
        super::explain::text(asked, body)
    })
}

/// `ringway plan`. Exit 1 where the file is wrong.
pub fn plan(at: &Where, as_json: bool, environment: &Environment) -> Exit {
    let Some(file) = &at.config else {
        complain("`ringway plan` needs -c FILE");
        return Exit::CommandLine;
    };
    let loaded = match config::load(file, environment) {
        Ok(loaded) => loaded,
        Err(report) => {
            if as_json {
                ready::print(
                    &json!({ "error": "the file is wrong", "problems": report.to_json() }).to_string(),
                );
            } else {
                complain(&format!("the file is wrong:\n{}", report.to_string().trim_end()));
            }
            return Exit::Configuration;
        }
    };
    let body = json!({ "name": file.display().to_string(), "text": &*loaded.text }).to_string();
    match at.ask(environment, "POST", "/v1/plan", Some(&body)) {
        Ok((reply, address)) => changes(&reply, &address, as_json),
        Err(exit) => exit,
    }
}

/// Shows what changes, or why nothing does.
fn changes(reply: &Reply, address: &Address, as_json: bool) -> Exit {
    let body = match reply.read::<Value>() {
        Ok(body) => body,
        Err(why) => return unreachable(address, &why),
    };
    if reply.status != 200 {
        if as_json {
            ready::print(&body.to_string());
        } else {
            refused(reply);
            for problem in body["problems"].as_array().into_iter().flatten() {
                complain(&problem_line(problem));
            }
        }
        // The process was reached, and what it was asked to do is what is wrong.
        return if reply.status == 503 { Exit::Unreachable } else { Exit::Configuration };
    }
    if as_json {
        ready::print(&body.to_string());
        return Exit::Clean;
    }
    let mut text = lines(&body["changes"]);
    for key in body["waits"].as_array().into_iter().flatten() {
        text += &format!("waits for an upgrade: {}\n", key.as_str().unwrap_or("-"));
    }
    text += &changed(&body);
    if let Some(total) = body["took_ms"]["total"].as_f64() {
        text += &format!("in force after {total:.1} ms\n");
    }
    ready::print(text.trim_end());
    Exit::Clean
}

/// What became of changes at run time, a line for each.
pub(super) fn changed(body: &Value) -> String {
    let mut text = String::new();
    for (key, what) in [
        ("drift", "stays as it was changed at run time"),
        ("ended", "is as the file says again, and no longer as it was changed at run time"),
        ("forgotten", "is gone, and what was set of it is forgotten"),
    ] {
        for name in body[key].as_array().into_iter().flatten() {
            text += &format!("{} {what}\n", name.as_str().unwrap_or("-"));
        }
    }
    text
}

fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or("-").to_owned();
    let (line, column) = (&problem["line"], &problem["column"]);
    format!("{}:{line}:{column}: {}: {}: {}", text("file"), text("severity"), text("key"), text("what"))
}

/// `ringway probe`. Exit 1 where the check failed.
pub fn probe_one(name: &Name, at: &Where, as_json: bool, environment: &Environment) -> Exit {
    let Found { address, token, loaded } = match at.find(environment, true) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let asked = address.map(|address| {
        (client::ask(&address, token.as_ref(), "POST", &path_of(name, "/probe"), None), address)
    });
    let body = match (asked, loaded) {
        (Some((Ok(reply), _)), _) if reply.status != 200 => return refused(&reply),
        (Some((Ok(reply), address)), _) => match reply.read() {
            Ok(body) => body,
            Err(why) => return unreachable(&address, &why),
        },
        (Some((Err(_), _)) | None, Some(loaded)) => match probe_from_here(name, &loaded) {
            Ok(body) => body,
            Err(exit) => return exit,
        },
        (Some((Err(why), address)), None) => return unreachable(&address, &why),
        // Without a file there is an address.
        (None, None) => return Exit::Internal,
    };
    ready::print(if as_json { body.to_string() } else { table::probe(name, &body) }.trim_end());
    if body["passed"] == true { Exit::Clean } else { Exit::Configuration }
}

/// Makes the check in this process: nothing runs that could be asked.
fn probe_from_here(name: &Name, loaded: &Loaded) -> Result<Value, Exit> {
    let task = endpoints::task(name, loaded).map_err(|unknown| {
        complain(&unknown);
        Exit::CommandLine
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        complain(&format!("cannot check from here: {e}"));
        Exit::Machine
    })?;
    let (verdict, took, transcript) = runtime.block_on(probe(&task));
    Ok(api::shown(&verdict, took, &transcript))
}
