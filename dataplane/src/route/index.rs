//! From host and path to the routes that could take a request, without looking at the others.
//!
//! A route is filed under each of its hosts (a wildcard by its suffix), and there under the whole segments that its
//! path keys begin with. A request asks for its host, each of its host's suffixes and "any host", and at each for every
//! whole-segment prefix of its path and "any path". What is found is a superset of what takes the request.

use crate::spec::{Match, Route};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Places of a route, hosts times paths, beyond which it is filed by its hosts alone.
const PLACES_PER_ROUTE: usize = 1024;

/// Routes by host.
#[derive(Debug, Default)]
pub(super) struct Index {
    any: Paths,
    /// Sorted. "app.example.com", or ".example.com" for the wildcard "*.example.com".
    hosts: Vec<(Box<[u8]>, Paths)>,
}

/// The routes of one host by path. Lists are places in the table, in file order.
#[derive(Debug, Default)]
struct Paths {
    any: Vec<u32>,
    /// Sorted, in lower case, without a slash at the end: "/v1/users", and "" for the root.
    segments: Vec<(Box<[u8]>, Vec<u32>)>,
    /// Slashes in the longest of `segments`: a request's path is not searched further.
    depth: usize,
}

impl Index {
    /// `hosts` are the names of a match that its routes are filed under.
    pub(super) fn build(routes: &[Arc<Route>], hosts: impl Fn(&Match) -> &[Arc<str>]) -> Self {
        let mut any = Filing::default();
        let mut named: BTreeMap<&[u8], Filing> = BTreeMap::new();
        for (at, route) in (0u32..).zip(routes) {
            let matcher = &route.matcher;
            let paths = path_keys(matcher);
            let hosts = hosts(matcher);
            let places = hosts.len().max(1) * paths.as_ref().map_or(1, Vec::len);
            let paths = paths.filter(|_| places <= PLACES_PER_ROUTE);
            if hosts.is_empty() {
                any.file(at, paths.as_deref());
            }
            for host in hosts {
                let key = host.strip_prefix('*').unwrap_or(host).as_bytes();
                named.entry(key).or_default().file(at, paths.as_deref());
            }
        }
        let hosts = named.into_iter().map(|(host, filing)| (host.into(), filing.done())).collect();
        Self { any: any.done(), hosts }
    }

    /// Calls `each` with lists of routes that together hold every route that takes the request, and some that do not.
    pub(super) fn candidates<'a>(&'a self, host: &[u8], path: &[u8], mut each: impl FnMut(&'a [u32])) {
        self.any.candidates(path, &mut each);
        if self.hosts.is_empty() {
            return;
        }
        // A wildcard stands for one label at least, so a dot in front is none of its dots.
        let dots = memchr::memchr_iter(b'.', host).filter(|&dot| dot > 0);
        for from in std::iter::once(0).chain(dots) {
            let found = self.hosts.binary_search_by(|(key, _)| (**key).cmp(&host[from..]));
            if let Ok(found) = found {
                self.hosts[found].1.candidates(path, &mut each);
            }
        }
    }
}

impl Paths {
    fn candidates<'a>(&'a self, path: &[u8], each: &mut impl FnMut(&'a [u32])) {
        each(&self.any);
        if self.segments.is_empty() {
            return;
        }
        let slashes = memchr::memchr_iter(b'/', path);
        for to in slashes.chain(std::iter::once(path.len())).take(self.depth + 1) {
            let found = self.segments.binary_search_by(|(key, _)| compare_folded(key, &path[..to]));
            if let Ok(found) = found {
                each(&self.segments[found].1);
            }
        }
    }
}

/// Compares a lower-case key with a text as if that were in lower case.
fn compare_folded(key: &[u8], text: &[u8]) -> Ordering {
    key.iter().copied().cmp(text.iter().map(u8::to_ascii_lowercase))
}

/// Whole segments that every path taken begins with, one of them at least; `None` if any path may be taken.
fn path_keys(matcher: &Match) -> Option<Vec<Box<[u8]>>> {
    let whole = |text: &Arc<str>| Some(text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase());
    // "/api/v" begins with all of "/api", and what follows is not whole.
    let begun = |text: &Arc<str>| text.rfind('/').map(|end| text[..end].to_ascii_lowercase());
    let keys: Vec<_> = if !matcher.path.is_empty() {
        matcher.path.iter().map(whole).collect()
    } else if !matcher.path_prefix.is_empty() {
        matcher.path_prefix.iter().map(whole).collect()
    } else if !matcher.path_begins.is_empty() {
        matcher.path_begins.iter().map(begun).collect()
    } else {
        return None;
    };
    keys.into_iter().map(|key| key.map(|key| key.into_bytes().into())).collect()
}

/// A host's routes while the index is built.
#[derive(Debug, Default)]
struct Filing {
    any: Vec<u32>,
    segments: Vec<(Box<[u8]>, u32)>,
}

impl Filing {
    fn file(&mut self, at: u32, paths: Option<&[Box<[u8]>]>) {
        match paths {
            None if self.any.last() != Some(&at) => self.any.push(at),
            None => {}
            Some(paths) => self.segments.extend(paths.iter().map(|path| (path.clone(), at))),
        }
    }

    fn done(mut self) -> Paths {
        self.segments.sort_unstable();
        self.segments.dedup();
        let mut segments: Vec<(Box<[u8]>, Vec<u32>)> = Vec::new();
        for (path, at) in self.segments {
            match segments.last_mut() {
                Some((last, list)) if *last == path => list.push(at),
                _ => segments.push((path, vec![at])),
            }
        }
        let slashes = |key: &[u8]| memchr::memchr_iter(b'/', key).count();
        let depth = segments.iter().map(|(key, _)| slashes(key)).max().unwrap_or(0);
        Paths { any: self.any, segments, depth }
    }
}
