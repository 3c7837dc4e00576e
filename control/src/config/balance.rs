//! `cluster.balance`: a policy by its name, or as a table with what it needs.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::matching::is_token;
use super::report::nearest;
use super::tree::{Item, Table};
use dataplane::cluster::balance::{POLICIES, cycle, maglev};
use dataplane::limits;
use dataplane::spec::{Endpoint, EndpointId, Hash, HashOn};
use std::sync::Arc;
use toml::de::DeValue;

/// Every policy; the first is the default.
pub(super) const NAMES: &[&str] = &{
    let mut names = [""; POLICIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = POLICIES[i].name;
        i += 1;
    }
    names
};
/// The policy that has parameters.
const HASH: &str = "hash";
/// The policy whose turns are made ahead.
pub(super) const ROUND_ROBIN: &str = "round_robin";

pub(super) static SECTION: Section = Section {
    path: "cluster.balance",
    shared: false,
    doc: "`balance` as a table: a policy with parameters. `balance = \"hash\"` alone is a hash of the client's address. All \
          but `policy` are for `\"hash\"` only.",
    keys: &[
        Key::new("policy", Shape::Word(NAMES, &[]), NextExchange, "The policy.").absent("required"),
        Key::new(
            "on",
            Shape::Free("\"source\", \"uri\", \"header:NAME\" or \"cookie:NAME\""),
            NextExchange,
            "What the hash is taken of: the client's address (that of a PROXY header, where one is accepted), path and query \
             as they are forwarded, or the first value of a field or cookie. A request that has no such field or cookie, or \
             an empty one, is hashed by the client's address. A cluster of tcp listeners has `\"source\"` only.",
        )
        .absent("\"source\""),
        Key::new(
            "table",
            Shape::Word(&["maglev"], &[]),
            NextExchange,
            "How a hash finds its endpoint: by a table of 65,537 slots (128 KiB), shared by weight. An endpoint that is down moves its \
             own keys only.",
        ),
        Key::new(
            "bounded_load",
            Shape::Free("a number from 1 to 100, as 1.25"),
            NextExchange,
            "No endpoint has more than this times its share, by weight, of the running requests: further keys of a busy \
             endpoint go where they would if it were down. 1.25 is usual; 1 spreads evenly and keeps few keys together.",
        )
        .absent("no bound"),
    ],
};

/// A policy as the file names it.
#[derive(Debug)]
pub(super) struct Balance {
    pub(super) policy: &'static str,
    on: HashOn,
    bounded_load: u32,
}

impl Balance {
    /// The turns of these endpoints.
    pub(super) fn cycle(&self, endpoints: &[Endpoint]) -> Option<Arc<[EndpointId]>> {
        (self.policy == ROUND_ROBIN).then(|| cycle::table(endpoints))
    }
    /// What the policy needs of these endpoints.
    pub(super) fn hash(&self, endpoints: &[Endpoint]) -> Option<Hash> {
        (self.policy == HASH).then(|| Hash {
            on: self.on.clone(),
            bounded_load: self.bounded_load,
            table: maglev::table(endpoints),
        })
    }
}

pub(super) fn read(cluster: &Table<'_>) -> Balance {
    let none = limits::BOUNDED_LOAD_PERCENT.default;
    let plain = |policy| Balance { policy, on: HashOn::Source, bounded_load: none };
    let Some(item) = cluster.get("balance").filter(|item| item.value.is_table()) else {
        return plain(cluster.word("balance"));
    };
    let Some(table) = item.table(&SECTION) else { return plain(NAMES[0]) };
    table.need("policy");
    let policy = table.word("policy");
    table.word("table");
    let (on, bounded_load) = (table.get("on"), table.get("bounded_load"));
    if policy != HASH && table.get("policy").is_some() {
        for item in [on, table.get("table"), bounded_load].into_iter().flatten() {
            item.error(format!("is for the policy \"hash\", and this one is {policy:?}"));
        }
    }
    Balance {
        policy,
        on: on.and_then(|item| hash_on(&item)).unwrap_or(HashOn::Source),
        bounded_load: bounded_load.and_then(|item| percent(&item)).unwrap_or(none),
    }
}

fn hash_on(item: &Item<'_>) -> Option<HashOn> {
    let text = item.words()?;
    let named = |name: &str, what: &str| {
        if !is_token(name) {
            item.error(format!("{name:?} is not a {what}'s name"));
        }
        is_token(name)
    };
    match text.split_once(':') {
        None if text == "source" => Some(HashOn::Source),
        None if text == "uri" => Some(HashOn::Uri),
        Some(("header", name)) => {
            named(name, "field").then(|| HashOn::Header(name.to_ascii_lowercase().into()))
        }
        Some(("cookie", name)) => named(name, "cookie").then(|| HashOn::Cookie(name.into())),
        _ => {
            let known = ["source", "uri", "header:NAME", "cookie:NAME"];
            item.error_near(
                format!("wants {}; this is {text:?}", item.key.shape.wants()),
                nearest(text, known),
            );
            None
        }
    }
}

/// A number from 1 to 100 as percent.
fn percent(item: &Item<'_>) -> Option<u32> {
    let bound = limits::BOUNDED_LOAD_PERCENT;
    let number = match item.value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().ok(),
        DeValue::Integer(integer) => integer.as_str().parse::<f64>().ok().filter(|_| integer.radix() == 10),
        _ => {
            item.wrong_type();
            return None;
        }
    };
    let percent = number.map(|number| (number * 100.0).round());
    let within = percent.filter(|p| (f64::from(bound.min)..=f64::from(bound.max)).contains(p));
    if within.is_none() {
        item.error("is out of range (1 to 100)");
    }
    // Within the bound, and so within 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 100 to 10,000")]
    within.map(|percent| percent as u32)
}
