//! Connections of clients: which there are, page by page over all shards, and the end of one.
//!
//! A shard answers for its own conns only. Whoever asks goes from shard to shard, one page at a time (`api`); control's loop
//! passes each on and puts names in the place of ids (`Lists`).

use super::{Answer, query, table};
use axum::http::StatusCode;
use dataplane::io::SocketAddress;
use dataplane::limits;
use dataplane::plane::Plane;
use dataplane::plane::listing::{Listing, Place, Row, Wanted};
use dataplane::spec::{Network, Protocol, Snapshot};
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

/// Names one life of a connection: `SHARD.SLOT.LIFE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId {
    shard: u16,
    place: Place,
}

impl ConnId {
    /// As the API writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let (shard, slot, generation) = (u16::try_from(number()?).ok()?, number()?, number()?);
        let whole = parts.next().is_none();
        whole.then_some(Self { shard, place: Place { slot, generation } })
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.place.slot, self.place.generation)
    }
}

/// Which connections are asked for, by names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Page {
    listener: Option<String>,
    cluster: Option<String>,
    endpoint: Option<String>,
    source: Option<Network>,
    pub(super) most: usize,
    /// Where it goes on.
    pub(super) shard: u16,
    pub(super) from: u32,
}

impl Page {
    /// Of a query; the error says what is wrong with it.
    pub(super) fn read(text: Option<&str>) -> Result<Self, String> {
        let known = ["listener", "cluster", "endpoint", "source", "limit", "after"];
        let [listener, cluster, endpoint, source, limit, after] = query::read(text, known)?;
        if endpoint.is_some() && cluster.is_none() {
            return Err("an endpoint needs its cluster".to_owned());
        }
        let most = limit.map_or(Some(limits::LISTING_ROWS_DEFAULT), |text| text.parse().ok());
        let most = most.filter(|most| (1..=limits::LISTING_ROWS).contains(most));
        let most = most.ok_or_else(|| format!("limit is 1 to {}", limits::LISTING_ROWS))?;
        let source =
            source.map(|text| network(&text).ok_or("source is an address, or 10.0.0.0/8")).transpose()?;
        let part = |text: &str| -> Option<(u16, u32)> {
            let (shard, from) = text.split_once('.')?;
            Some((shard.parse().ok()?, from.parse().ok()?))
        };
        let (shard, from) = match after {
            Some(text) => part(&text).ok_or("after is what `next` of the page before says")?,
            None => (0, 0),
        };
        Ok(Self { listener, cluster, endpoint, source, most, shard, from })
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let address = address.parse::<IpAddr>().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Some(most), |bits| bits.parse().ok())?;
    (prefix <= most).then_some(Network { address, prefix })
}

/// A question about connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Of one shard.
    Page(Page),
    Show(ConnId),
    Kill(ConnId),
}

impl Wants {
    fn shard(&self) -> u16 {
        match self {
            Self::Page(page) => page.shard,
            Self::Show(id) | Self::Kill(id) => id.shard,
        }
    }
}

/// What one shard says.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(super) rows: Vec<Value>,
    /// Where its next page begins.
    pub(super) next: Option<u32>,
    pub(super) shards: u16,
}

pub(crate) type Reply = Result<Listed, Answer>;

/// How long a shard may take: it answers within a few turns, or has stalled.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether a shard has answered.
const PAUSE: Duration = Duration::from_millis(1);

/// A question that a shard has, or that waits for it.
#[derive(Debug)]
struct Open {
    wants: Wants,
    to: oneshot::Sender<Reply>,
    since: Instant,
}

/// The questions to the shards: one at a time for each.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Those that were passed on.
    asked: Vec<Open>,
    waiting: VecDeque<Open>,
}

impl Lists {
    /// Takes a question. Who asked for one that waits too long is told so.
    pub(crate) fn ask(
        &mut self,
        wants: Wants,
        to: oneshot::Sender<Reply>,
        plane: &Plane,
        snapshot: &Snapshot,
    ) {
        self.waiting.retain(|open| !open.to.is_closed());
        let full = self.waiting.len() >= limits::ADMIN_QUESTIONS;
        let open = Open { wants, to, since: Instant::now() };
        if full {
            return open.answer(Err(unavailable("too many questions about connections wait")));
        }
        self.waiting.push_back(open);
        self.pass_on(plane, snapshot);
    }

    /// Waits until it is worth looking again; pending for ever while nobody asks.
    pub(crate) async fn next(&self) {
        match self.asked.is_empty() && self.waiting.is_empty() {
            true => std::future::pending().await,
            false => sleep(PAUSE).await,
        }
    }

    /// Passes answers back, and the next questions on.
    pub(crate) fn look(&mut self, plane: &Plane, snapshot: &Snapshot) {
        let shards = snapshot.runtime.shards;
        for shard in 0..shards {
            let Some(listing) = plane.listed(shard) else { continue };
            // Whoever asked may have been told already that it takes too long.
            let Some(at) = self.asked.iter().position(|open| open.wants.shard() == shard) else { continue };
            let open = self.asked.swap_remove(at);
            let shown = |row: &Row| shown(shard, row, snapshot);
            let rows = listing.rows().iter().map(shown).collect();
            open.answer(Ok(Listed { rows, next: listing.next(), shards }));
        }
        self.pass_on(plane, snapshot);
        self.give_up();
    }

    fn give_up(&mut self) {
        let late = |open: &Open| open.since.elapsed() >= PATIENCE;
        let mut over: Vec<Open> = self.asked.extract_if(.., |open| late(open)).collect();
        while self.waiting.front().is_some_and(late) {
            over.extend(self.waiting.pop_front());
        }
        over.into_iter().for_each(|open| open.answer(Err(unavailable("the shard does not answer"))));
    }

    fn pass_on(&mut self, plane: &Plane, snapshot: &Snapshot) {
        for open in std::mem::take(&mut self.waiting) {
            let shard = open.wants.shard();
            let listing = match listing(&open.wants, snapshot) {
                Ok(listing) => listing,
                Err(answer) => {
                    open.answer(Err(answer));
                    continue;
                }
            };
            match plane.list(shard, Box::new(listing)) {
                Ok(()) => self.asked.push(open),
                Err(_) => self.waiting.push_back(open),
            }
        }
    }
}

impl Open {
    fn answer(self, with: Reply) {
        // Who asked may be gone.
        let _ = self.to.send(with);
    }
}

fn unavailable(why: &str) -> Answer {
    Answer::refused(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// The same question by ids.
fn listing(wants: &Wants, snapshot: &Snapshot) -> Result<Listing, Answer> {
    if wants.shard() >= snapshot.runtime.shards {
        return match wants {
            Wants::Page(_) => Err(Answer::refused(StatusCode::BAD_REQUEST, "there is no such shard")),
            Wants::Show(id) | Wants::Kill(id) => Err(gone(*id)),
        };
    }
    let page = match wants {
        Wants::Show(id) => return Ok(Listing::one(id.place)),
        Wants::Kill(id) => return Ok(Listing::kill(id.place)),
        Wants::Page(page) => page,
    };
    let unknown = |kind: &str, name: &str| {
        Answer::refused(StatusCode::NOT_FOUND, &format!("no {kind} is called {name:?}"))
    };
    let mut wanted = Wanted { source: page.source, ..Wanted::default() };
    if let Some(name) = &page.listener {
        let found = snapshot.listeners.iter().flatten().find(|one| *one.name == **name);
        wanted.listener = Some(found.ok_or_else(|| unknown("listener", name))?.id);
    }
    if let Some(name) = &page.cluster {
        let found = snapshot.clusters.iter().flatten().find(|one| *one.name == **name);
        let cluster = found.ok_or_else(|| unknown("cluster", name))?;
        wanted.cluster = Some(cluster.id);
        if let Some(name) = &page.endpoint {
            let found = cluster.endpoints.iter().find(|one| *one.name == **name);
            wanted.endpoint = Some(found.ok_or_else(|| unknown("endpoint of the cluster", name))?.id);
        }
    }
    Ok(Listing::page(wanted, page.from, page.most))
}

/// The id names nobody, or nobody any more.
pub(super) fn gone(id: ConnId) -> Answer {
    Answer::refused(StatusCode::NOT_FOUND, &format!("there is no connection {id}"))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectionView<'a> {
    id: String,
    listener: &'a str,
    protocol: &'static str,
    state: &'static str,
    peer: String,
    local: Option<String>,
    route: Option<&'a str>,
    cluster: Option<&'a str>,
    endpoint: Option<&'a str>,
    /// Both ends of the connection to the endpoint.
    link_local: Option<String>,
    link_peer: Option<String>,
    age_ms: u64,
    quiet_ms: u64,
    requests: u32,
    /// From the client, and acknowledged by it, since the connection began.
    up_bytes: Option<u64>,
    down_bytes: Option<u64>,
}

fn shown(shard: u16, row: &Row, snapshot: &Snapshot) -> Value {
    let listener = snapshot.listener(row.listener);
    let cluster = row.upstream.and_then(|upstream| snapshot.cluster(upstream.cluster));
    let endpoint =
        row.upstream.and_then(|upstream| cluster?.endpoints.get(usize::from(upstream.endpoint?.0)));
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let text = |address: Option<SocketAddress>| address.map(|address| address.to_string());
    let link_local = row.upstream.and_then(|upstream| upstream.local);
    let view = ConnectionView {
        id: ConnId { shard, place: row.place }.to_string(),
        listener: listener.map_or("", |listener| &listener.name),
        protocol: match listener.map(|listener| listener.protocol) {
            Some(Protocol::Tcp) => "tcp",
            _ => "http",
        },
        state: row.state,
        peer: row.peer.to_string(),
        local: text(row.local),
        route: row.route.and_then(|id| snapshot.routes.named(id)).map(|route| &*route.name),
        cluster: cluster.map(|cluster| &*cluster.name),
        endpoint: endpoint.map(|endpoint| &*endpoint.name),
        link_local: text(link_local),
        link_peer: link_local.and(endpoint).map(|endpoint| endpoint.address.to_string()),
        age_ms: ms(row.age),
        quiet_ms: ms(row.quiet),
        requests: row.requests,
        up_bytes: row.carried.map(|(up, _)| up),
        down_bytes: row.carried.map(|(_, down)| down),
    };
    serde_json::to_value(view).unwrap_or_default()
}

/// The answer as text for a terminal.
pub(super) fn text(body: &Value) -> String {
    let columns = [
        ("ID", "id"),
        ("LISTENER", "listener"),
        ("STATE", "state"),
        ("CLIENT", "peer"),
        ("TO", "local"),
        ("ROUTE", "route"),
        ("CLUSTER", "cluster"),
        ("ENDPOINT", "endpoint"),
        ("FROM", "link_local"),
        ("AGE MS", "age_ms"),
        ("QUIET MS", "quiet_ms"),
        ("REQUESTS", "requests"),
        ("UP", "up_bytes"),
        ("DOWN", "down_bytes"),
    ];
    let mut out = table::rows(&body["connections"], &columns);
    if let Some(next) = body["next"].as_str() {
        out += &format!("there are more: --after {next}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = ConnId::parse("1.70000.3").unwrap();
        assert_eq!(
            (id.shard, id.place, id.to_string()),
            (1, Place { slot: 70_000, generation: 3 }, "1.70000.3".to_owned())
        );
        for wrong in ["", "1", "1.2", "1.2.3.4", "a.2.3", "70000.1.1", "1.-2.3", "1.2.", "1.99999999999.1"] {
            assert_eq!(ConnId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_says_which_page() {
        let page =
            Page::read(Some("cluster=app&endpoint=one&source=10.0.0.0%2F8&limit=5&after=1.64")).unwrap();
        assert_eq!((page.cluster.as_deref(), page.endpoint.as_deref()), (Some("app"), Some("one")));
        assert_eq!((page.most, page.shard, page.from), (5, 1, 64));
        assert_eq!(page.source, Some(Network { address: [10, 0, 0, 0].into(), prefix: 8 }));
        assert_eq!(Page::read(None).unwrap().most, limits::LISTING_ROWS_DEFAULT);
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "after=1",
            "after=a.b",
            "endpoint=one",
            "source=a",
            "source=10.0.0.0/33",
            "x=1",
        ] {
            assert!(Page::read(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
