//! Discovery: clusters whose endpoints are not all written down. Host names are resolved as long as their answers last, files
//! are looked at, and what changed is made a configuration that the shards go over to.
//!
//! `sources` says where a cluster's endpoints come from, `resolver` asks one question, `names` asks again and again, `file` is
//! a list that somebody else writes, `following` makes one cluster of all that. This file brings them together: its tasks run
//! on the control thread and tell what they find through one channel, which the next tick reads.

mod file;
mod following;
mod names;
mod resolver;
mod sources;

pub(crate) use file::read as read_file;
pub use sources::{Entry, Query, Sources};

use crate::config::Loaded;
use crate::log::Log;
use dataplane::limits;
use dataplane::plane::Plane;
use dataplane::spec::{Endpoint, Snapshot};
use following::Following;
use names::Answer;
use resolver::Resolver;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// Findings on their way from the tasks; a task waits for room.
const FINDINGS: usize = 256;

/// What a task found.
#[derive(Debug)]
enum Found {
    /// Where a name leads, or why that could not be told.
    Name(Query, Result<Answer, String>),
    /// What stands in the file of the cluster at this place of the list of those that are followed, or what is wrong with it.
    File(usize, Result<Vec<Endpoint>, String>),
}

/// A source, as the log speaks of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Name(Query),
    File(usize),
}

/// Everything that is followed.
#[derive(Debug)]
pub(crate) struct Discovery {
    followed: Vec<Following>,
    /// The entries that ask for a name: which of `followed`, and which of its entries.
    askers: BTreeMap<Query, Vec<(usize, usize)>>,
    found: mpsc::Receiver<Found>,
    /// What is wrong with a source at present; each trouble is told once.
    troubles: BTreeMap<Source, String>,
    /// The last that was made.
    snapshot: Arc<Snapshot>,
    /// Places in `followed` of those about which something was found.
    changed: Vec<usize>,
    /// Made and told to the log: the next tick swaps it in, so that no record comes of an endpoint that the log has not heard of.
    next: Option<Arc<Snapshot>>,
    /// Swaps and when they were made, until they are as old as an id has to rest; the last of those that are.
    swaps: VecDeque<(u64, Instant)>,
    rested: u64,
}

impl Discovery {
    /// Begins to follow what the clusters of `loaded` ask for, and waits a little for the first answers. The configuration to
    /// start with has the endpoints that were found by then; a source without an answer holds nobody up.
    pub(crate) async fn start(loaded: &Loaded) -> (Self, Arc<Snapshot>) {
        let snapshot = Arc::clone(&loaded.snapshot);
        let mut followed = Vec::new();
        for cluster in snapshot.clusters.iter().flatten() {
            let sources = loaded.sources.get(usize::from(cluster.id.0)).and_then(Option::as_ref);
            followed.extend(sources.map(|sources| Following::new(cluster, Arc::clone(sources))));
        }
        let mut askers: BTreeMap<Query, Vec<(usize, usize)>> = BTreeMap::new();
        for (place, following) in followed.iter().enumerate() {
            for (entry, query) in following.queries() {
                askers.entry(query.clone()).or_default().push((place, entry));
            }
        }
        let (tell, found) = mpsc::channel(FINDINGS);
        let files = followed.iter().enumerate().filter_map(|(at, f)| Some((at, f.file()?.clone())));
        let awaited = askers.len() + spawn(askers.keys(), files, &loaded.process.resolvers, &tell);
        let mut discovery = Self {
            followed,
            askers,
            found,
            troubles: BTreeMap::new(),
            snapshot,
            changed: Vec::new(),
            next: None,
            swaps: VecDeque::new(),
            rested: 0,
        };
        discovery.await_first(awaited).await;
        let first = discovery.make(0, |_, _, _| false).unwrap_or_else(|| Arc::clone(&discovery.snapshot));
        discovery.snapshot = Arc::clone(&first);
        (discovery, first)
    }

    async fn await_first(&mut self, awaited: usize) {
        let by = Instant::now() + limits::NAMES_AT_START;
        for _ in 0..awaited {
            match timeout_at(by, self.found.recv()).await {
                Ok(Some(found)) => self.note(found),
                Ok(None) | Err(_) => break,
            }
        }
        for (query, askers) in &self.askers {
            for (following, entry) in
                askers.iter().filter_map(|(at, entry)| Some((self.followed.get(*at)?, *entry)))
            {
                if !following.is_answered(entry) && !self.troubles.contains_key(&Source::Name(query.clone()))
                {
                    let cluster = following.name();
                    tracing::warn!(cluster, "{query} is not answered yet; its cluster starts without it");
                }
            }
        }
    }

    /// One tick: takes what was found, and has the shards go over to what came of it. The configuration that they go over to,
    /// where there is one.
    pub(crate) fn tick(&mut self, plane: &Plane, log: &Log) -> Option<Arc<Snapshot>> {
        plane.switch();
        while let Some((swap, _)) = self.swaps.front().filter(|(_, at)| at.elapsed() >= limits::ENDPOINT_REST)
        {
            self.rested = *swap;
            self.swaps.pop_front();
        }
        let next = self.next.take();
        if let Some(next) = &next {
            plane.swap(Arc::clone(next));
            self.swaps.push_back((plane.swaps(), Instant::now()));
        }
        while let Ok(found) = self.found.try_recv() {
            self.note(found);
        }
        // One at a time: the number of the swap that this will be is known then.
        let rested = self.rested;
        let is_free = |cluster, id, since| since <= rested && plane.is_free(cluster, id, since);
        if let Some(made) = self.make(plane.swaps() + 1, is_free) {
            log.follow(Vec::new(), Arc::clone(&made));
            self.snapshot = Arc::clone(&made);
            self.next = Some(made);
        }
        next
    }

    fn note(&mut self, found: Found) {
        let (source, trouble, places) = match found {
            Found::Name(query, answer) => {
                let askers = self.askers.get(&query).map(Vec::as_slice).unwrap_or_default();
                let trouble = match &answer {
                    Err(why) => Some(stands(why)),
                    Ok(answer) => answer.excess(),
                };
                let mut places = Vec::new();
                if let Ok(answer) = &answer {
                    for &(place, entry) in askers {
                        if self.followed.get_mut(place).is_some_and(|f| f.answer(entry, &answer.targets)) {
                            places.push(place);
                        }
                    }
                }
                (Source::Name(query), trouble, places)
            }
            Found::File(place, list) => {
                let trouble = list.as_ref().err().map(|why| stands(why));
                let following = self.followed.get_mut(place);
                let changed = following.zip(list.ok()).is_some_and(|(f, list)| f.list(list));
                (Source::File(place), trouble, if changed { vec![place] } else { Vec::new() })
            }
        };
        self.changed.extend(places);
        self.tell(source, trouble);
    }

    /// Writes a line when there is trouble with a source, and when it is over.
    fn tell(&mut self, source: Source, trouble: Option<String>) {
        let (what, place) = match &source {
            Source::Name(query) => {
                let first = self.askers.get(query).and_then(|askers| askers.first());
                (query.to_string(), first.map(|(place, _)| *place))
            }
            Source::File(place) => {
                let file = self.followed.get(*place).and_then(|f| f.file());
                (file.map(|path| path.display().to_string()).unwrap_or_default(), Some(*place))
            }
        };
        // Of several that ask for one name the first.
        let cluster = place.and_then(|place| self.followed.get(place)).map_or("", |f| f.name());
        match trouble {
            Some(trouble) if self.troubles.get(&source) != Some(&trouble) => {
                match self.troubles.insert(source, trouble.clone()) {
                    // Another reason than before, of the same trouble.
                    Some(_) => tracing::info!(cluster, "{what}: {trouble}"),
                    None => tracing::warn!(cluster, "{what}: {trouble}"),
                }
            }
            Some(_) => {}
            None => {
                if self.troubles.remove(&source).is_some() {
                    tracing::info!(cluster, "{what}: is answered again as it should be");
                }
            }
        }
    }

    /// The configuration with what was found, for swap number `swap`; none where nothing changed.
    fn make(
        &mut self,
        swap: u64,
        is_free: impl Fn(dataplane::spec::ClusterId, dataplane::spec::EndpointId, u64) -> bool,
    ) -> Option<Arc<Snapshot>> {
        // Some were left out because of others that are gone, and those have rested now.
        let places = self.followed.iter().enumerate();
        let have_room =
            places.filter(|(_, f)| f.has_room_now(swap, |id, since| is_free(f.cluster(), id, since)));
        self.changed.extend(have_room.map(|(place, _)| place));
        self.changed.sort_unstable();
        self.changed.dedup();
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return None;
        }
        let mut next = Snapshot::clone(&self.snapshot);
        for place in changed {
            let Some(following) = self.followed.get_mut(place) else { continue };
            let id = following.cluster();
            let Some(Some(cluster)) = next.clusters.get_mut(usize::from(id.0)) else { continue };
            *cluster =
                Arc::new(following.make(cluster, swap, |endpoint, since| is_free(id, endpoint, since)));
        }
        Some(Arc::new(next))
    }
}

/// Of a source that says nothing new.
fn stands(why: &str) -> String {
    format!("{why}; what was known of it stands")
}

/// Starts the tasks; how many files there are.
fn spawn<'q>(
    queries: impl Iterator<Item = &'q Query>,
    files: impl Iterator<Item = (usize, PathBuf)>,
    resolvers: &[std::net::SocketAddr],
    tell: &mpsc::Sender<Found>,
) -> usize {
    let mut queries = queries.peekable();
    if queries.peek().is_some() {
        let (resolver, gate) = (Resolver::start(resolvers), Arc::new(Semaphore::new(limits::NAMES_AT_ONCE)));
        for query in queries {
            tokio::spawn(names::follow(query.clone(), resolver.clone(), Arc::clone(&gate), tell.clone()));
        }
    }
    let mut count = 0;
    for (place, path) in files {
        tokio::spawn(file::follow(place, path, tell.clone()));
        count += 1;
    }
    count
}
