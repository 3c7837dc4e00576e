//! Why a route does not take a request: for whoever asks, by the functions that decide it on the shards.

use super::{Opening, Request, RouteTable, matching};
use crate::spec::{Match, Route};
use std::sync::Arc;

/// Each key of a match with what is left of the match without all others. What the paths are compared by stays.
fn keys(matcher: &Match) -> impl Iterator<Item = (&'static str, Match)> {
    let bare = || Match { ignore_case: matcher.ignore_case, ..Match::default() };
    let m = matcher.clone();
    [
        ("host", Match { host: m.host, ..bare() }),
        ("host_prefix", Match { host_prefix: m.host_prefix, ..bare() }),
        ("path", Match { path: m.path, ..bare() }),
        ("path_prefix", Match { path_prefix: m.path_prefix, ..bare() }),
        ("path_begins", Match { path_begins: m.path_begins, ..bare() }),
        ("path_suffix", Match { path_suffix: m.path_suffix, ..bare() }),
        ("path_regex", Match { path_regex: m.path_regex, ..bare() }),
        ("available", Match { available: m.available, ..bare() }),
        ("method", Match { method: m.method, ..bare() }),
        ("source", Match { source: m.source, ..bare() }),
        ("header", Match { header: m.header, ..bare() }),
        ("cookie", Match { cookie: m.cookie, ..bare() }),
        ("query", Match { query: m.query, ..bare() }),
        ("not", Match { not: m.not, ..bare() }),
    ]
    .into_iter()
}

/// The first key for which a route does not take a request, `listeners` among them; none if it takes it.
pub fn refuses(route: &Route, request: &Request<'_>) -> Option<&'static str> {
    if matching::takes(route, request) {
        return None;
    }
    if !route.listeners.is_empty() && !route.listeners.contains(&request.listener) {
        return Some("listeners");
    }
    keys(&route.matcher).find(|(_, alone)| !matching::holds(alone, request)).map(|(key, _)| key)
}

/// The same of a connection to a tcp listener.
fn refuses_opening(route: &Route, opening: &Opening<'_>) -> Option<&'static str> {
    if matching::takes_opening(route, opening) {
        return None;
    }
    if !route.listeners.contains(&opening.listener) {
        return Some("listeners");
    }
    let m = route.matcher.clone();
    let keys = [
        ("sni", Match { sni: m.sni, ..Match::default() }),
        ("alpn", Match { alpn: m.alpn, ..Match::default() }),
        ("source", Match { source: m.source, ..Match::default() }),
        ("available", Match { available: m.available, ..Match::default() }),
        ("not", Match { not: m.not, ..Match::default() }),
    ];
    keys.into_iter().find(|(_, alone)| !matching::opening_holds(alone, opening)).map(|(key, _)| key)
}

impl RouteTable {
    /// Of the routes of its listener, those in front of the one that takes a connection, as [`RouteTable::passed_over`].
    pub fn openings_passed_over(&self, opening: &Opening<'_>) -> Vec<(&Arc<Route>, &'static str)> {
        let taken = self.find_opening(opening);
        let of_it = self.openings.routes.iter().filter(|route| route.listeners.contains(&opening.listener));
        let before = of_it.take_while(|route| taken.is_none_or(|taken| !Arc::ptr_eq(taken, route)));
        before.filter_map(|route| Some((route, refuses_opening(route, opening)?))).collect()
    }

    /// The routes in front of the one that takes a request, each with the key for which it does not; all of them where none
    /// does. In file order.
    pub fn passed_over(&self, request: &Request<'_>) -> Vec<(&Arc<Route>, &'static str)> {
        let taken = self.find(request);
        let before = self
            .requests
            .routes
            .iter()
            .take_while(|route| taken.is_none_or(|taken| !Arc::ptr_eq(taken, route)));
        before.filter_map(|route| Some((route, refuses(route, request)?))).collect()
    }
}
