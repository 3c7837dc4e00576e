//! One cluster whose endpoints are found: what its sources say, and the cluster that comes of it.

use super::names::Target;
use super::{Entry, Query, Sources};
use dataplane::cluster::roster::Roster;
use dataplane::limits;
use dataplane::spec::{Cluster, ClusterId, Endpoint, EndpointId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The number of the entry that a file's endpoints belong to; there are fewer entries than this.
const FILE: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Following {
    cluster: ClusterId,
    name: Arc<str>,
    sources: Arc<Sources>,
    roster: Roster,
    /// By entry, the number by which the roster knows it: an entry keeps its own wherever it stands.
    numbers: Vec<u16>,
    /// By entry, the last answer; `None` until there is one, and where nothing is asked.
    answers: Vec<Option<Vec<Target>>>,
    /// The last list of its file.
    list: Vec<Endpoint>,
    /// Endpoints for which there was no id.
    left_out: usize,
    /// Names that more than one endpoint would have.
    twins: BTreeSet<Arc<str>>,
}

impl Following {
    pub(super) fn new(cluster: &Cluster, sources: Arc<Sources>) -> Self {
        let answers = vec![None; sources.entries.len()];
        let numbers = (0..).take(sources.entries.len()).collect();
        let mut following = Self {
            cluster: cluster.id,
            name: Arc::clone(&cluster.name),
            sources,
            roster: Roster::default(),
            numbers,
            answers,
            list: Vec::new(),
            left_out: 0,
            twins: BTreeSet::new(),
        };
        // Those that are written down have the ids already that they get here.
        following.roster.update(following.wanted().0, 0, |_, _| false);
        following
    }
    /// Other sources from now on. An entry of the same name is the same, and if it asks for the same name has its answer.
    pub(super) fn follow(&mut self, sources: Arc<Sources>) {
        let known: BTreeMap<&str, usize> =
            self.sources.entries.iter().zip(0..).map(|(entry, at)| (&*entry.endpoint.name, at)).collect();
        let place = |entry: &Entry| known.get(&*entry.endpoint.name).copied();
        let taken: BTreeSet<u16> =
            sources.entries.iter().filter_map(|entry| self.numbers.get(place(entry)?).copied()).collect();
        let mut free = (0..FILE).filter(|number| !taken.contains(number));
        let (mut numbers, mut answers) = (Vec::new(), Vec::new());
        for entry in &sources.entries {
            let before = place(entry);
            let number = before.and_then(|at| self.numbers.get(at).copied());
            numbers.push(number.or_else(|| free.next()).unwrap_or(FILE - 1));
            let same = before.filter(|at| self.sources.entries[*at].query == entry.query);
            answers.push(same.and_then(|at| self.answers.get(at).cloned().flatten()));
        }
        if self.sources.file != sources.file {
            self.list.clear();
        }
        (self.numbers, self.answers, self.sources) = (numbers, answers, sources);
    }
    /// The entries whose question is not answered yet.
    pub(super) fn unanswered(&self) -> Vec<(usize, Query)> {
        let open = self.queries().filter(|(entry, _)| !self.is_answered(*entry));
        open.map(|(entry, query)| (entry, query.clone())).collect()
    }
    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster
    }
    pub(super) fn name(&self) -> &str {
        &self.name
    }
    pub(super) fn file(&self) -> Option<&PathBuf> {
        self.sources.file.as_ref()
    }
    /// The entries that ask for a name.
    pub(super) fn queries(&self) -> impl Iterator<Item = (usize, &Query)> {
        self.sources.queries()
    }
    pub(super) fn is_answered(&self, entry: usize) -> bool {
        self.answers.get(entry).is_some_and(Option::is_some)
    }
    /// Takes an answer; says whether it is another than before.
    pub(super) fn answer(&mut self, entry: usize, targets: &[Target]) -> bool {
        let Some(known) = self.answers.get_mut(entry) else { return false };
        if known.as_deref() == Some(targets) {
            return false;
        }
        *known = Some(targets.to_vec());
        true
    }
    /// Takes the list of its file; says whether it is another than before.
    pub(super) fn list(&mut self, list: Vec<Endpoint>) -> bool {
        let differs = self.list != list;
        self.list = list;
        differs
    }

    /// Whether an endpoint that was left out may have an id by now.
    pub(super) fn has_room_now(&self, swap: u64, is_free: impl Fn(EndpointId, u64) -> bool) -> bool {
        self.left_out > 0 && self.roster.has_free(swap, is_free)
    }

    /// The endpoints that the sources speak of, each with the entry that it comes from; and the names of those that are left
    /// out because another has them, by which alone clients, operators and logs would not tell the two apart.
    fn wanted(&self) -> (Vec<(u16, Endpoint)>, BTreeSet<Arc<str>>) {
        let mut wanted = Vec::new();
        for ((entry, answer), &number) in self.sources.entries.iter().zip(&self.answers).zip(&self.numbers) {
            if entry.query.is_none() {
                wanted.push((number, entry.endpoint.clone()));
            }
            let targets = answer.as_deref().unwrap_or_default();
            wanted.extend(targets.iter().map(|target| (number, found(&entry.endpoint, target, targets))));
        }
        wanted.extend(self.list.iter().map(|endpoint| (FILE, endpoint.clone())));
        let (mut names, mut twins) = (BTreeSet::new(), BTreeSet::new());
        wanted.retain(|(_, endpoint)| {
            let is_first = names.insert(Arc::clone(&endpoint.name));
            if !is_first {
                twins.insert(Arc::clone(&endpoint.name));
            }
            is_first
        });
        (wanted, twins)
    }

    /// The cluster `spec` with what its sources say now, for swap number `swap`; `before` is what it was.
    pub(super) fn make(
        &mut self,
        before: &Cluster,
        spec: &Cluster,
        swap: u64,
        is_free: impl Fn(EndpointId, u64) -> bool,
    ) -> Cluster {
        let (wanted, twins) = self.wanted();
        for name in twins.difference(&self.twins).take(limits::ENDPOINTS_TOLD) {
            tracing::warn!(
                cluster = &*self.name,
                endpoint = &**name,
                "two sources name an endpoint alike: the first is used; give them names of their own"
            );
        }
        self.twins = twins;
        let update = self.roster.update(wanted, swap, is_free);
        let mut cluster = self.roster.cluster(spec);
        if let Some(sticky) = &spec.sticky {
            let written =
                |endpoint: &Endpoint| Some((Arc::clone(&endpoint.name), *sticky.value(endpoint.id)?));
            let known: BTreeMap<Arc<str>, _> = spec.present().filter_map(written).collect();
            let value =
                |name: &str| known.get(name).copied().unwrap_or_else(|| self.sources.sticky_value(name));
            match sticky.with_endpoints(&cluster.endpoints, value) {
                Ok(sticky) => cluster.sticky = Some(sticky),
                Err(ids) => tracing::error!(
                    cluster = &*self.name,
                    ?ids,
                    "two endpoints have one cookie value; it stays as it was"
                ),
            }
        }
        self.tell(before, &cluster);
        let before = std::mem::replace(&mut self.left_out, update.left_out);
        if update.left_out > before {
            let left_out = update.left_out;
            tracing::warn!(
                cluster = &*self.name,
                left_out,
                "more endpoints than a cluster may have; the last are left out"
            );
        }
        if cluster.present().next().is_none() && !self.sources.is_empty() {
            tracing::warn!(cluster = &*self.name, "no endpoint is known: what routes send to it is refused");
        }
        cluster
    }

    /// Writes who came and who went.
    fn tell(&self, before: &Cluster, now: &Cluster) {
        let cluster = &*self.name;
        let is_in = |spec: &Cluster, endpoint: &Endpoint| {
            let same = spec.endpoints.get(usize::from(endpoint.id.0));
            same.is_some_and(|other| !other.gone && other.address == endpoint.address)
        };
        let went = before.present().filter(|endpoint| !is_in(now, endpoint));
        let came = now.present().filter(|endpoint| !is_in(before, endpoint));
        let changes =
            went.map(|endpoint| (endpoint, "is gone")).chain(came.map(|endpoint| (endpoint, "came")));
        let mut more = 0_usize;
        for (n, (endpoint, what)) in changes.enumerate() {
            match n < limits::ENDPOINTS_TOLD {
                true => {
                    tracing::info!(cluster, endpoint = &*endpoint.name, address = %endpoint.address, "endpoint {what}");
                }
                false => more += 1,
            }
        }
        if more > 0 {
            tracing::info!(cluster, more, "and more endpoints came or went");
        }
    }
}

/// The endpoint at one of the addresses that an entry's name leads to.
fn found(entry: &Endpoint, target: &Target, all: &[Target]) -> Endpoint {
    let Target { address, authority, weight, tier } = target;
    let same_port = all.iter().all(|other| other.address.port() == address.port());
    // Where there is only one, whoever looks at it by its name finds it after each change of its address.
    let name = match (all.len(), same_port) {
        (1, _) => Arc::clone(&entry.name),
        (_, true) => format!("{}/{}", entry.name, address.ip()).into(),
        (_, false) => format!("{}/{address}", entry.name).into(),
    };
    Endpoint {
        name,
        address: dataplane::io::SocketAddress::from(*address).into(),
        authority: Arc::clone(authority),
        weight: weight.unwrap_or(entry.weight),
        priority: entry.priority.saturating_add(*tier),
        ..entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::io::SocketAddress;

    fn endpoint(name: &str) -> Endpoint {
        Endpoint::new(EndpointId(0), name, SocketAddress::new([10, 9, 9, 9].into(), 1).into())
    }
    fn targets(list: &[&str]) -> Vec<Target> {
        let target = |text: &&str| Target {
            address: text.parse().unwrap(),
            authority: "app:80".into(),
            weight: None,
            tier: 0,
        };
        list.iter().map(target).collect()
    }
    fn names(cluster: &Cluster) -> Vec<(u16, String)> {
        cluster.present().map(|e| (e.id.0, e.name.to_string())).collect()
    }

    #[test]
    fn names_and_files_make_a_cluster() {
        let named = Endpoint { weight: 3, priority: 1, ..endpoint("app:80") };
        let query = Query::Host { name: "app".into(), port: 80 };
        let entries = vec![
            Entry { endpoint: named, query: Some(query) },
            Entry { endpoint: endpoint("fixed"), query: None },
        ];
        let sources = Arc::new(Sources { entries, file: Some("/x".into()), sticky_key: None });
        let spec = Cluster::new(ClusterId(3), "c", vec![endpoint("fixed")]);
        let mut following = Following::new(&spec, sources);
        assert!(!following.is_answered(0));
        let empty = following.make(&spec, &spec, 1, |_, _| true);
        assert_eq!(names(&empty), [(0, "fixed".to_owned())], "with the id that it had");
        assert!(
            following.answer(0, &targets(&["10.0.0.1:80"]))
                && !following.answer(0, &targets(&["10.0.0.1:80"]))
        );
        let one = following.make(&empty, &empty, 2, |_, _| true);
        assert_eq!(names(&one), [(0, "fixed".to_owned()), (1, "app:80".to_owned())]);
        let of_name = &one.endpoints[1];
        assert_eq!((of_name.weight, of_name.priority, &*of_name.authority), (3, 1, "app:80"));
        assert!(following.answer(0, &targets(&["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"])));
        let two = following.make(&one, &one, 3, |_, _| true);
        let expected = [(0, "fixed"), (1, "app:80/10.0.0.1"), (2, "app:80/10.0.0.2"), (3, "app:80/::1")];
        assert_eq!(names(&two), expected.map(|(id, name)| (id, name.to_owned())));
        assert!(following.answer(0, &targets(&["10.0.0.2:80", "10.0.0.2:81"])));
        assert!(following.list(vec![endpoint("listed")]) && !following.list(vec![endpoint("listed")]));
        let last = following.make(&two, &two, 4, |_, _| false);
        let expected = [(0, "fixed"), (2, "app:80/10.0.0.2:80"), (4, "app:80/10.0.0.2:81"), (5, "listed")];
        assert_eq!(names(&last), expected.map(|(id, name)| (id, name.to_owned())));
        assert_eq!((last.endpoints[1].gone, last.endpoints[1].weight), (true, 0));
    }

    #[test]
    fn of_two_with_one_name_the_first_is_used() {
        let entries = vec![Entry { endpoint: endpoint("10.9.9.9:1"), query: None }];
        let sources = Arc::new(Sources { entries, file: Some("/x".into()), sticky_key: None });
        let spec = Cluster::new(ClusterId(3), "c", vec![endpoint("10.9.9.9:1")]);
        let mut following = Following::new(&spec, sources);
        assert!(following.list(vec![endpoint("10.9.9.9:1"), endpoint("other")]));
        let made = following.make(&spec, &spec, 1, |_, _| true);
        assert_eq!(names(&made), [(0, "10.9.9.9:1".to_owned()), (1, "other".to_owned())]);
        assert_eq!(following.twins.len(), 1);
    }

    /// A list of as many others as there may be is taken as soon as the ids of those before it are free.
    #[test]
    fn who_is_left_out_comes_when_there_is_room() {
        let sources = Arc::new(Sources { entries: Vec::new(), file: Some("/x".into()), sticky_key: None });
        let spec = Cluster::new(ClusterId(3), "c", Vec::new());
        let mut following = Following::new(&spec, sources);
        let listed = |net: u8| {
            let most = u16::try_from(limits::ENDPOINTS_MAX).unwrap();
            let at =
                move |n: u16| SocketAddress::new([10, net, n.to_be_bytes()[0], n.to_be_bytes()[1]].into(), 1);
            (0..most).map(|n| Endpoint::new(EndpointId(0), &at(n).to_string(), at(n).into())).collect()
        };
        following.list(listed(1));
        let first = following.make(&spec, &spec, 1, |_, _| false);
        following.list(listed(2));
        let second = following.make(&first, &first, 2, |_, _| false);
        assert_eq!((second.present().count(), following.left_out), (0, limits::ENDPOINTS_MAX));
        assert!(!following.has_room_now(3, |_, _| false) && following.has_room_now(3, |_, since| since == 2));
        let third = following.make(&second, &second, 3, |_, since| since == 2);
        assert_eq!((third.present().count(), following.left_out), (limits::ENDPOINTS_MAX, 0));
        assert!(!following.has_room_now(4, |_, _| true));
    }
}
