//! `[[route]]`: in file order, the first whose match holds takes the request.

use super::keys::ReloadEffect::NextExchange;
use super::keys::{Key, Section, Shape};
use super::names::Names;
use super::tree::Table;
use super::{Severity, error_page, matching, reply};
use dataplane::limits;
use dataplane::spec::{
    Action, ClusterId, Listener, ListenerId, Maintenance, Match, Protocol, Route, RouteId, SwitchId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;

pub(super) static SECTION: Section = Section {
    path: "route",
    shared: false,
    doc: "In file order; the first whose match holds takes the request. Exactly one of `cluster`, `respond` and \
          `redirect` says what becomes of it. On a tcp listener a route takes connections: its match has `sni`, `alpn`, \
          `source`, `available` and `not`, and it has a `cluster`.",
    keys: &[
        Key::new("name", Shape::Free("a name"), NextExchange, "Its identity in log, metrics and plan.")
            .absent("\"FIRST LISTENER/N\", N being its place among the routes"),
        Key::new("listeners", Shape::Free("names of listeners"), NextExchange, "Where it holds.")
            .absent("every http listener"),
        Key::new("match", Shape::Table(&matching::SECTION), NextExchange, "Which requests it takes.")
            .absent("every request"),
        Key::new("cluster", Shape::Free("the name of a cluster"), NextExchange, "Forward to this cluster.")
            .absent("none"),
        Key::new("respond", Shape::Table(&reply::RESPOND), NextExchange, "Answer.").absent("none"),
        Key::new("redirect", Shape::Table(&reply::REDIRECT), NextExchange, "Redirect.").absent("none"),
        Key::new(
            "maintenance_file",
            Shape::Free("a path"),
            NextExchange,
            "While this file exists, whatever it holds, the route answers as `maintenance` says and does nothing else. It is \
             looked for every 500 ms, so that `touch` and `rm` take a health route out and back; a load balancer in front \
             then stops sending. Relative to where the process was started.",
        )
        .absent("none"),
        Key::new(
            "maintenance",
            Shape::Table(&reply::MAINTENANCE),
            NextExchange,
            "What the route answers while its `maintenance_file` exists.",
        ),
        Key::new(
            "timeouts",
            Shape::Table(&TIMEOUTS),
            NextExchange,
            "Instead of the cluster's, for requests of this route.",
        )
        .absent("the cluster's"),
        Key::new(
            "error_page",
            Shape::Tables(&error_page::SECTION),
            NextExchange,
            "What refusals of its requests are answered with, instead of the listener's pages for their statuses.",
        )
        .absent("the listener's"),
    ],
};

pub(super) static TIMEOUTS: Section = Section {
    path: "route.timeouts",
    shared: false,
    doc: "As in `[cluster.timeouts]`, for requests of this route.",
    keys: &[
        Key::new("connect", Shape::Duration(limits::CONNECT_TIMEOUT, None), NextExchange, "To connect.")
            .absent("the cluster's"),
        Key::new(
            "response_header",
            Shape::Duration(limits::RESPONSE_HEADER_TIMEOUT, None),
            NextExchange,
            "For the response's head.",
        )
        .absent("the cluster's"),
        Key::new(
            "response_body",
            Shape::Duration(limits::RESPONSE_BODY_TIMEOUT, None),
            NextExchange,
            "Between two pieces of the response's body.",
        )
        .absent("the cluster's"),
        Key::new(
            "send",
            Shape::Duration(limits::SEND_TIMEOUT, None),
            NextExchange,
            "For the origin to take any of what is sent.",
        )
        .absent("the cluster's"),
        Key::new(
            "queue",
            Shape::Duration(limits::QUEUE_TIMEOUT, None),
            NextExchange,
            "To wait for a place at a full endpoint.",
        )
        .absent("the cluster's"),
    ],
};

/// A path and whether there was a file when the configuration was read; in the order of the switches that they turn.
pub(super) type MaintenanceFiles = Vec<(PathBuf, bool)>;

/// Reads routes, one after the other.
#[derive(Debug)]
pub(super) struct Reader<'l> {
    listeners: &'l [Listener],
    listener_names: &'l [Arc<str>],
    names: BTreeSet<Arc<str>>,
    pages: usize,
    pub(super) routes: Vec<Arc<Route>>,
    /// Where each stands in the file.
    pub(super) offsets: Vec<usize>,
    pub(super) files: MaintenanceFiles,
}

impl<'l> Reader<'l> {
    /// `pages` are error pages that the file has already.
    pub(super) fn new(listeners: &'l [Listener], listener_names: &'l [Arc<str>], pages: usize) -> Self {
        let (names, routes, offsets, files) = Default::default();
        Self { listeners, listener_names, names, pages, routes, offsets, files }
    }

    pub(super) fn read(&mut self, table: &Table<'_>, listeners: &mut Names, clusters: &mut Names) {
        let index = self.routes.len();
        let ids = listener_ids(table, listeners);
        let first = ids.first().map_or(0, |id| usize::from(id.0));
        let name: Arc<str> = match table.get("name") {
            None => {
                let first = self.listener_names.get(first).map_or("?", |name| name);
                format!("{first}/{}", index + 1).into()
            }
            Some(item) => {
                let name = item.name().unwrap_or_else(|| "?".into());
                if &*name != "?" && !self.names.insert(Arc::clone(&name)) {
                    item.error(format!("another route is called {name:?}"));
                }
                name
            }
        };
        let matcher = table.get("match").is_some().then(|| table.table("match"));
        let mut route = Route {
            id: RouteId(u32::try_from(index).unwrap_or(u32::MAX)),
            name,
            listeners: ids,
            matcher: matcher.as_ref().map(|table| matching::read(table, clusters)).unwrap_or_default(),
            action: action(table, clusters),
            maintenance: None,
            error_pages: Default::default(),
        };
        route.maintenance = maintenance(table, &route, &mut self.files);
        route.error_pages = error_page::read(table, &mut self.pages);
        check_protocols(table, matcher.as_ref(), &route, self.listeners);
        self.routes.push(Arc::new(route));
        self.offsets.push(table.offset);
    }
}

/// The other face of `route`, if it has one. A file that several routes name is one switch.
fn maintenance(table: &Table<'_>, route: &Route, files: &mut MaintenanceFiles) -> Option<Maintenance> {
    let file = table.get("maintenance_file");
    if file.is_none() && table.get("maintenance").is_none() {
        return None;
    }
    if let (Some(item), None) = (table.get("maintenance"), file) {
        item.error("is answered while a file exists: name it as `maintenance_file`");
    }
    let reply = reply::maintenance(&table.table("maintenance"));
    let item = file?;
    let text = item.words()?;
    if text.contains('\0') {
        item.error("a path has no NUL");
        return None;
    }
    let path = PathBuf::from(text);
    let on = path.try_exists().unwrap_or(false);
    let at = files.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
        files.push((path, on));
        files.len() - 1
    });
    if at >= limits::MAINTENANCE_FILES {
        item.error(format!("there are more than {} maintenance files", limits::MAINTENANCE_FILES));
        return None;
    }
    let instead = Route { action: Action::Respond(Arc::new(reply)), ..route.clone() };
    Some(Maintenance { switch: SwitchId(u16::try_from(at).ok()?), on, instead: Arc::new(instead) })
}

fn listener_ids(table: &Table<'_>, listeners: &mut Names) -> Vec<ListenerId> {
    let mut ids = Vec::new();
    for item in table.each("listeners") {
        if let Some(id) = listeners.resolve(&item).map(ListenerId)
            && !ids.contains(&id)
        {
            ids.push(id);
        }
    }
    ids
}

fn action(table: &Table<'_>, clusters: &mut Names) -> Action {
    let present: Vec<_> =
        ["cluster", "respond", "redirect"].iter().filter_map(|key| table.get(key)).collect();
    for item in present.iter().skip(1) {
        item.error("a route has exactly one of `cluster`, `respond` and `redirect`");
    }
    let timeouts = table.table("timeouts");
    if let (Some(item), true) = (table.get("timeouts"), table.get("cluster").is_none()) {
        item.error("only a route with a `cluster` has timeouts");
    }
    let respond =
        table.get("respond").map(|_| Action::Respond(Arc::new(reply::respond(&table.table("respond")))));
    let redirect =
        table.get("redirect").map(|_| Action::Redirect(Arc::new(reply::redirect(&table.table("redirect")))));
    if present.is_empty() {
        table.lacks(
            Severity::Error,
            "cluster",
            "is missing: a route has one of `cluster`, `respond` and `redirect`",
        );
    }
    let cluster = table.get("cluster").and_then(|item| clusters.resolve(&item));
    respond.or(redirect).unwrap_or_else(|| Action::Forward {
        cluster: ClusterId(cluster.unwrap_or(0)),
        response_header: timeouts.duration_if_set("response_header"),
        response_body: timeouts.duration_if_set("response_body"),
        send: timeouts.duration_if_set("send"),
        connect: timeouts.duration_if_set("connect"),
        queue: timeouts.duration_if_set("queue"),
    })
}

/// Tells of keys of a route that one of its listeners can never meet: of requests on a tcp listener, of a ClientHello on one of
/// http.
fn check_protocols(table: &Table<'_>, matcher: Option<&Table<'_>>, route: &Route, listeners: &[Listener]) {
    let is_tcp = |id: &ListenerId| {
        listeners.get(usize::from(id.0)).filter(|listener| listener.protocol == Protocol::Tcp)
    };
    let tcp = route.listeners.iter().find_map(is_tcp);
    let of_http = route.listeners.is_empty() || route.listeners.iter().any(|id| is_tcp(id).is_none());
    if of_http {
        for item in matcher.into_iter().flat_map(matching::of_hellos) {
            item.later("where the listener is of http; a tcp one has it");
        }
    }
    let Some(tcp) = tcp else { return };
    let own = ["respond", "redirect", "timeouts", "maintenance_file", "error_page"]
        .iter()
        .filter_map(|key| table.get(key));
    for item in own.chain(matcher.into_iter().flat_map(matching::of_requests)) {
        item.error(format!("is about requests, and the listener {:?} is tcp", tcp.name));
    }
}

/// Warns of routes that an earlier one leaves nothing: it has the same match or none, and holds wherever they do.
pub(super) fn warn_hidden(root: &Table<'_>, offsets: &[usize], routes: &[Arc<Route>]) {
    // Of matches that are equal the marks are; where the listeners of such a route are sorted.
    let mut seen: BTreeMap<u64, Vec<(&Match, Vec<ListenerId>)>> = BTreeMap::new();
    let everything = Match::default();
    let mark_of_everything = mark(&everything);
    for (offset, route) in offsets.iter().zip(routes) {
        let mut listeners = route.listeners.clone();
        listeners.sort_unstable();
        let hides = |matcher: &Match, mark: u64| {
            let Some(alike) = seen.get(&mark) else { return false };
            let at = |at: &[ListenerId]| {
                alike.iter().any(|(other, listeners)| listeners == at && *other == matcher)
            };
            at(&[]) || at(&listeners) || (!listeners.is_empty() && listeners.iter().all(|&id| at(&[id])))
        };
        let own = mark(&route.matcher);
        let why = if hides(&everything, mark_of_everything) {
            Some("an earlier route takes every request")
        } else if hides(&route.matcher, own) {
            Some("an earlier route has the same match")
        } else {
            None
        };
        if let Some(why) = why {
            root.bare(&SECTION, *offset).lacks(
                Severity::Warning,
                "match",
                format!("the route {:?} takes nothing: {why}", route.name),
            );
        }
        let alike = seen.entry(own).or_default();
        if why.is_none() {
            alike.push((&route.matcher, listeners));
        }
    }
}

/// A number that is the same for equal matches, and mostly another for others.
fn mark(matcher: &Match) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Match { host, host_prefix, path, path_prefix, path_begins, path_suffix, method, .. } = matcher;
    (host, host_prefix, path, path_prefix, path_begins, path_suffix, method).hash(&mut hasher);
    let Match { path_regex, header, cookie, query, source, sni, alpn, available, not, .. } = matcher;
    (sni, alpn).hash(&mut hasher);
    let plain = path_regex.is_empty() && header.is_empty() && cookie.is_empty() && query.is_empty();
    if !(plain && source.is_empty() && available.is_none() && not.is_none()) {
        format!("{path_regex:?}{header:?}{cookie:?}{query:?}{source:?}{available:?}{not:?}")
            .hash(&mut hasher);
    }
    hasher.finish()
}
