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
use crate::reload::put;
use dataplane::limits;
use dataplane::plane::Plane;
use dataplane::spec::{Cluster, ClusterId, Endpoint, Snapshot};
use following::Following;
use names::{Answer, Target};
use resolver::Resolver;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Findings on their way from the tasks; a task waits for room.
const FINDINGS: usize = 256;

/// What a task found.
#[derive(Debug)]
enum Found {
    /// Where a name leads, or why that could not be told.
    Name(Query, Result<Answer, String>),
    /// What stands in the file of this number, or what is wrong with it.
    File(usize, Result<Vec<Endpoint>, String>),
}

/// A source, as the log speaks of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Name(Query),
    File(usize),
}

/// A file that is followed.
#[derive(Debug)]
struct Listed {
    cluster: ClusterId,
    path: PathBuf,
    task: AbortHandle,
}

/// Everything that is followed.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// Clusters whose endpoints are found, and those whose endpoints were changed by a reload: by id.
    followed: BTreeMap<ClusterId, Following>,
    /// The entries that ask for a name: which of `followed`, and which of its entries.
    askers: BTreeMap<Query, Vec<(ClusterId, usize)>>,
    /// The last answer of each, for those who come to ask it too, and the task that asks.
    answers: BTreeMap<Query, (Option<Vec<Target>>, AbortHandle)>,
    /// By number; one that nobody has any more is none.
    files: Vec<Option<Listed>>,
    asking: Asking,
    found: mpsc::Receiver<Found>,
    /// What is wrong with a source at present; each trouble is told once.
    troubles: BTreeMap<Source, String>,
    /// The last that was made.
    snapshot: Arc<Snapshot>,
    /// Those of `followed` about which something was found.
    changed: Vec<ClusterId>,
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
        let mut followed = BTreeMap::new();
        for cluster in snapshot.clusters.iter().flatten() {
            let sources = loaded.sources.get(usize::from(cluster.id.0)).and_then(Option::as_ref);
            let following = sources.map(|sources| Following::new(cluster, Arc::clone(sources)));
            followed.extend(following.map(|following| (cluster.id, following)));
        }
        let (tell, found) = mpsc::channel(FINDINGS);
        let asking = Asking { tell, resolvers: loaded.process.resolvers.clone(), tools: None };
        let mut discovery = Self {
            followed,
            askers: BTreeMap::new(),
            answers: BTreeMap::new(),
            files: Vec::new(),
            asking,
            found,
            troubles: BTreeMap::new(),
            snapshot,
            changed: Vec::new(),
            next: None,
            swaps: VecDeque::new(),
            rested: 0,
        };
        discovery.ask();
        let awaited = discovery.answers.len() + discovery.files.len();
        discovery.await_first(awaited).await;
        let first = discovery.make(0, |_, _, _| false).unwrap_or_else(|| Arc::clone(&discovery.snapshot));
        discovery.snapshot = Arc::clone(&first);
        (discovery, first)
    }

    /// Has everything asked that somebody asks for, and nothing else.
    fn ask(&mut self) {
        self.askers.clear();
        for (cluster, following) in &self.followed {
            for (entry, query) in following.queries() {
                self.askers.entry(query.clone()).or_default().push((*cluster, entry));
            }
        }
        let Self { askers, answers, asking, troubles, .. } = self;
        answers.retain(|query, (_, task)| {
            let asked = askers.contains_key(query);
            if !asked {
                task.abort();
                troubles.remove(&Source::Name(query.clone()));
            }
            asked
        });
        for query in askers.keys() {
            if !answers.contains_key(query) {
                answers.insert(query.clone(), (None, asking.name(query)));
            }
        }
        for (number, file) in self.files.iter_mut().enumerate() {
            let wanted =
                |file: &Listed| self.followed.get(&file.cluster).and_then(|f| f.file()) == Some(&file.path);
            if let Some(gone) = file.take_if(|file| !wanted(file)) {
                gone.task.abort();
                self.troubles.remove(&Source::File(number));
            }
        }
        for (cluster, following) in &self.followed {
            let Some(path) = following.file() else { continue };
            if !self.files.iter().flatten().any(|file| file.cluster == *cluster) {
                // A number is never given anew: what is on its way of the former would be taken for the other's.
                let task = self.asking.file(self.files.len(), path.clone());
                self.files.push(Some(Listed { cluster: *cluster, path: path.clone(), task }));
            }
        }
    }

    /// What was made last, the swap of which may be due.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
    /// The last swap that has been made for as long as an id has to rest.
    pub(crate) fn rested(&self) -> u64 {
        self.rested
    }

    /// Goes over to the clusters of `next`, which are as they are written, for swap number `swap`: those in `changed` get the
    /// endpoints that are known, those in `gone` have none any more. What did not change is followed undisturbed.
    pub(crate) fn follow(
        &mut self,
        mut next: Snapshot,
        sources: &[Option<Arc<Sources>>],
        (changed, gone): (&[ClusterId], &[ClusterId]),
        swap: u64,
        plane: &Plane,
    ) -> Arc<Snapshot> {
        let rested = self.rested;
        let is_free = |cluster, id, since| since <= rested && plane.is_free(cluster, id, since);
        self.followed.retain(|id, _| next.cluster(*id).is_some());
        for id in changed {
            let Some(spec) = next.cluster(*id).cloned() else { continue };
            let own = sources.get(usize::from(id.0)).cloned().flatten();
            let before = self.snapshot.cluster(*id).cloned();
            if !self.followed.contains_key(id) {
                let begun = match &before {
                    Some(before) => Some(Following::new(before, Arc::new(Sources::plain(before)))),
                    None => own.clone().map(|own| Following::new(&spec, own)),
                };
                self.followed.extend(begun.map(|following| (*id, following)));
            }
            let Some(following) = self.followed.get_mut(id) else { continue };
            following.follow(own.unwrap_or_else(|| Arc::new(Sources::plain(&spec))));
            for (entry, query) in following.unanswered() {
                if let Some((Some(targets), _)) = self.answers.get(&query) {
                    following.answer(entry, targets);
                }
            }
            let before = before.as_deref().unwrap_or(&spec);
            let made = following.make(before, &spec, swap, |endpoint, since| is_free(*id, endpoint, since));
            put(&mut next.clusters, id.0, Arc::new(made));
        }
        for id in gone {
            let Some(before) = self.snapshot.cluster(*id).cloned() else { continue };
            let new = || Following::new(&before, Arc::new(Sources::plain(&before)));
            let following = self.followed.entry(*id).or_insert_with(new);
            following.follow(Arc::new(Sources::default()));
            let made = following.make(&before, &before, swap, |_, _| false);
            put(&mut next.clusters, id.0, Arc::new(Cluster { gone: true, ..made }));
        }
        self.ask();
        self.changed.retain(|id| self.followed.contains_key(id));
        self.next = None;
        self.snapshot = Arc::new(next);
        Arc::clone(&self.snapshot)
    }

    /// The plane went over to what [`Discovery::follow`] made.
    pub(crate) fn on_swapped(&mut self, plane: &Plane) {
        self.swaps.push_back((plane.swaps(), Instant::now()));
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
                askers.iter().filter_map(|(id, entry)| Some((self.followed.get(id)?, *entry)))
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
                // Of a task that was told to end there may still be one.
                let Some((known, _)) = self.answers.get_mut(&query) else { return };
                let askers = self.askers.get(&query).map(Vec::as_slice).unwrap_or_default();
                let trouble = match &answer {
                    Err(why) => Some(stands(why)),
                    Ok(answer) => answer.excess(),
                };
                let mut places = Vec::new();
                if let Ok(answer) = &answer {
                    *known = Some(answer.targets.clone());
                    for &(place, entry) in askers {
                        if self.followed.get_mut(&place).is_some_and(|f| f.answer(entry, &answer.targets)) {
                            places.push(place);
                        }
                    }
                }
                (Source::Name(query), trouble, places)
            }
            Found::File(number, list) => {
                let Some(Some(file)) = self.files.get(number) else { return };
                let trouble = list.as_ref().err().map(|why| stands(why));
                let following = self.followed.get_mut(&file.cluster);
                let changed = following.zip(list.ok()).is_some_and(|(f, list)| f.list(list));
                (Source::File(number), trouble, if changed { vec![file.cluster] } else { Vec::new() })
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
            Source::File(number) => {
                let file = self.files.get(*number).and_then(Option::as_ref);
                let path = file.map(|file| file.path.display().to_string());
                (path.unwrap_or_default(), file.map(|file| file.cluster))
            }
        };
        // Of several that ask for one name the first.
        let cluster = place.and_then(|place| self.followed.get(&place)).map_or("", |f| f.name());
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
        is_free: impl Fn(ClusterId, dataplane::spec::EndpointId, u64) -> bool,
    ) -> Option<Arc<Snapshot>> {
        // Some were left out because of others that are gone, and those have rested now.
        let have_room = self
            .followed
            .iter()
            .filter(|(_, f)| f.has_room_now(swap, |id, since| is_free(f.cluster(), id, since)));
        self.changed.extend(have_room.map(|(id, _)| *id));
        self.changed.sort_unstable();
        self.changed.dedup();
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return None;
        }
        let mut next = Snapshot::clone(&self.snapshot);
        for id in changed {
            let Some(following) = self.followed.get_mut(&id) else { continue };
            let Some(Some(cluster)) = next.clusters.get_mut(usize::from(id.0)) else { continue };
            let may = |endpoint, since| is_free(id, endpoint, since);
            *cluster = Arc::new(following.make(cluster, cluster, swap, may));
        }
        Some(Arc::new(next))
    }
}

/// Of a source that says nothing new.
fn stands(why: &str) -> String {
    format!("{why}; what was known of it stands")
}

/// What a task is started with.
#[derive(Debug)]
struct Asking {
    tell: mpsc::Sender<Found>,
    resolvers: Vec<std::net::SocketAddr>,
    /// Made when the first name is asked for.
    tools: Option<(Resolver, Arc<Semaphore>)>,
}

impl Asking {
    fn name(&mut self, query: &Query) -> AbortHandle {
        let (resolver, gate) = self.tools.get_or_insert_with(|| {
            (Resolver::start(&self.resolvers), Arc::new(Semaphore::new(limits::NAMES_AT_ONCE)))
        });
        let (resolver, gate) = (resolver.clone(), Arc::clone(gate));
        tokio::spawn(names::follow(query.clone(), resolver, gate, self.tell.clone())).abort_handle()
    }
    fn file(&self, number: usize, path: PathBuf) -> AbortHandle {
        tokio::spawn(file::follow(number, path, self.tell.clone())).abort_handle()
    }
}
