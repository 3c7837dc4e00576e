//! Each match key by example, and the index against a linear scan over random routes and requests.

use super::*;
use crate::proto::{Field, FieldName, Method, Span};
use crate::spec::{Action, Available, ClusterId, FieldMatch, Match, Network, Pattern, RouteId, TextMatch};
use proptest::prelude::*;

/// A head as a parser would make it.
struct Built {
    head: RequestHead,
    bytes: Vec<u8>,
}

impl Built {
    /// `target` is path and query; each field a name and a value.
    fn new(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> Self {
        let mut bytes = Vec::new();
        let mut put = |text: &str| {
            let start = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(text.as_bytes());
            Span { start, len: u32::try_from(text.len()).unwrap() }
        };
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut head = RequestHead {
            method: Method::Other,
            method_text: put(method),
            authority: put(host),
            path: put(path),
            query: query.map(&mut put),
            ..RequestHead::default()
        };
        head.host = head.authority;
        for (name, value) in fields {
            let (name, value) = (put(name), put(value));
            head.fields.push(Field { name, value, kind: FieldName::Other, hop: false });
        }
        Self { head, bytes }
    }
    fn request(&self) -> Request<'_> {
        let source = Some([10, 1, 2, 3].into());
        Request { listener: ListenerId(0), head: &self.head, bytes: &self.bytes, source, available: &[] }
    }
}

fn route(id: u32, matcher: Match) -> Arc<Route> {
    let action = Action::Forward {
        cluster: ClusterId(0),
        response_header: None,
        response_body: None,
        send: None,
        connect: None,
        queue: None,
    };
    Arc::new(Route {
        id: RouteId(id),
        name: "r".into(),
        listeners: Vec::new(),
        matcher,
        action,
        maintenance: None,
        error_pages: Default::default(),
    })
}

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|&text| text.into()).collect()
}

fn table(matchers: impl IntoIterator<Item = Match>) -> RouteTable {
    let routes: Vec<_> = (0..).zip(matchers).map(|(id, matcher)| route(id, matcher)).collect();
    RouteTable::build(&routes)
}

fn found(table: &RouteTable, built: &Built) -> Option<u32> {
    table.find(&built.request()).map(|route| route.id.0)
}

/// Which of `targets` (at host a.test) a match takes.
fn taken<'a>(matcher: &Match, targets: &[&'a str]) -> Vec<&'a str> {
    let table = table([matcher.clone()]);
    let takes = |target: &&&str| found(&table, &Built::new("GET", "a.test", target, &[])).is_some();
    targets.iter().filter(takes).copied().collect()
}

#[test]
fn the_first_in_file_order_takes_it() {
    let host = |host: &str| Match { host: texts(&[host]), ..Match::default() };
    let path = |path: &str| Match { path_prefix: texts(&[path]), ..Match::default() };
    let table = table([path("/v1/x"), host("*.test"), host("a.test"), path("/v1"), Match::default()]);
    let at = |host: &str, target: &str| found(&table, &Built::new("GET", host, target, &[]));
    assert_eq!(at("a.test", "/v1/x/y"), Some(0));
    assert_eq!(at("a.test", "/v1"), Some(1));
    assert_eq!(at("b", "/v1"), Some(3));
    assert_eq!(at("b", "/"), Some(4));
    assert_eq!(at("", "*"), Some(4));
}

#[test]
fn hosts_are_exact_or_have_one_label_more_at_least() {
    let takes = |names: &[&str], host: &str| {
        let table = table([Match { host: texts(names), ..Match::default() }]);
        found(&table, &Built::new("GET", host, "/", &[])).is_some()
    };
    assert!(takes(&["a.test"], "a.test") && !takes(&["a.test"], "b.a.test") && !takes(&["a.test"], "a.tes"));
    assert!(takes(&["*.a.test"], "b.a.test") && takes(&["*.a.test"], "c.b.a.test"));
    assert!(
        !takes(&["*.a.test"], "a.test")
            && !takes(&["*.a.test"], ".a.test")
            && !takes(&["*.a.test"], "ba.test")
    );
    assert!(takes(&["x", "*.test"], "y.test") && !takes(&["x"], ""));
    let prefix = table([Match { host_prefix: texts(&["api-", "www"]), ..Match::default() }]);
    let at = |host| found(&prefix, &Built::new("GET", host, "/", &[])).is_some();
    assert!(at("api-1.test") && at("www") && !at("xapi-1.test") && !at("api"));
}

/// T09: an engine that backtracks would try 2^65536 ways here, and this test would never end.
#[test]
fn a_pattern_that_backtracks_elsewhere_is_linear_here() {
    let almost = format!("{}b", "a".repeat(65536));
    let matcher = Match { path_regex: vec![Pattern::new("(a+)+$", false).unwrap()], ..Match::default() };
    assert!(taken(&matcher, &[almost.as_str()]).is_empty());
    assert_eq!(taken(&matcher, &[&almost[..65536]]).len(), 1);
}

#[test]
fn paths_by_each_of_their_keys() {
    let all = ["/", "/v1", "/v1/", "/v1/x", "/v1x", "/V1/X", "/x/v1", "*"];
    let none = Match::default;
    assert_eq!(taken(&Match { path: texts(&["/v1"]), ..none() }, &all), ["/v1"]);
    assert_eq!(taken(&Match { path: texts(&["/v1/"]), ..none() }, &all), ["/v1/"]);
    assert_eq!(taken(&Match { path_prefix: texts(&["/v1"]), ..none() }, &all), ["/v1", "/v1/", "/v1/x"]);
    assert_eq!(taken(&Match { path_prefix: texts(&["/v1/"]), ..none() }, &all), ["/v1/", "/v1/x"]);
    assert_eq!(taken(&Match { path_prefix: texts(&["/"]), ..none() }, &all), all[..7]);
    assert_eq!(
        taken(&Match { path_begins: texts(&["/v1"]), ..none() }, &all),
        ["/v1", "/v1/", "/v1/x", "/v1x"]
    );
    assert_eq!(taken(&Match { path_begins: texts(&["/v1/"]), ..none() }, &all), ["/v1/", "/v1/x"]);
    assert_eq!(taken(&Match { path_begins: texts(&["*"]), ..none() }, &all), ["*"]);
    assert_eq!(
        taken(&Match { path_suffix: texts(&["v1", "/v1/"]), ..none() }, &all),
        ["/v1", "/v1/", "/x/v1"]
    );
    let folded = Match { path_prefix: texts(&["/v1/x"]), ignore_case: true, ..none() };
    assert_eq!(taken(&folded, &all), ["/v1/x", "/V1/X"]);
    let regex = Match {
        path_regex: vec![Pattern::new("^/v.$", false).unwrap(), Pattern::new("x$", false).unwrap()],
        ..none()
    };
    assert_eq!(taken(&regex, &all), ["/v1", "/v1/x", "/v1x"]);
    let both = Match { path_prefix: texts(&["/v1"]), path_suffix: texts(&["x"]), ..none() };
    assert_eq!(taken(&both, &all), ["/v1/x"]);
    assert_eq!(taken(&Match { not: Some(Box::new(both)), ..none() }, &["/v1", "/v1/x"]), ["/v1"]);
}

/// Whether a match on one named text takes a request with these fields and this target.
fn text_takes(put: fn(&mut Match, FieldMatch), name: &str, text: TextMatch, built: &Built) -> bool {
    let mut matcher = Match::default();
    put(&mut matcher, FieldMatch { name: name.into(), text });
    found(&table([matcher]), built).is_some()
}

#[test]
fn fields_by_presence_text_prefix_and_regex() {
    let built = Built::new("GET", "a.test", "/", &[("X-Env", "a"), ("x-env", "b"), ("Host", "raw.test")]);
    let takes = |name, text| text_takes(|m, f| m.header.push(f), name, text, &built);
    assert!(takes("x-env", TextMatch::Present) && !takes("x-en", TextMatch::Present));
    assert!(takes("x-other", TextMatch::Absent) && !takes("x-env", TextMatch::Absent));
    assert!(
        takes("x-env", TextMatch::AnyOf(texts(&["c", "b"])))
            && !takes("x-env", TextMatch::AnyOf(texts(&["B"])))
    );
    assert!(takes("x-env", TextMatch::Prefix("".into())) && !takes("x-env", TextMatch::Prefix("ab".into())));
    assert!(takes("x-env", TextMatch::Regex(Pattern::new("^b$", false).unwrap())));
    assert!(!takes("x-none", TextMatch::Regex(Pattern::new("", false).unwrap())));
    assert!(takes("host", TextMatch::AnyOf(texts(&["a.test"]))), "the target's authority, not the field");
    assert!(!takes("host", TextMatch::AnyOf(texts(&["raw.test"]))));
}

#[test]
fn cookies_by_pair() {
    let fields = [("cookie", "a=1; b = x=y ;c;  d=\"q\""), ("Cookie", "a=2")];
    let built = Built::new("GET", "a.test", "/", &fields);
    let takes = |name, text| text_takes(|m, f| m.cookie.push(f), name, text, &built);
    let is = |text| TextMatch::AnyOf(texts(&[text]));
    assert!(takes("a", is("1")) && takes("a", is("2")) && !takes("a", is("12")));
    assert!(takes("b", is("x=y")) && takes("d", is("\"q\"")));
    assert!(takes("c", TextMatch::Absent) && takes("A", TextMatch::Absent), "no pair; another name");
}

#[test]
fn query_keys_as_they_stand() {
    let built = Built::new("GET", "a.test", "/?a=1&&b&c=x=y&a=2&%61=3", &[]);
    let takes = |name, text| text_takes(|m, f| m.query.push(f), name, text, &built);
    let is = |text| TextMatch::AnyOf(texts(&[text]));
    assert!(takes("a", is("1")) && takes("a", is("2")) && !takes("a", is("3")));
    assert!(takes("b", is("")) && takes("c", is("x=y")) && takes("%61", is("3")));
    assert!(takes("", TextMatch::Absent) && takes("d", TextMatch::Absent));
    let bare = Built::new("GET", "a.test", "/", &[]);
    assert!(text_takes(|m, f| m.query.push(f), "a", TextMatch::Absent, &bare));
}

#[test]
fn method_source_and_listener() {
    let built = Built::new("PURGE", "a.test", "/", &[]);
    let takes = |matcher| found(&table([matcher]), &built).is_some();
    assert!(takes(Match { method: texts(&["GET", "PURGE"]), ..Match::default() }));
    assert!(!takes(Match { method: texts(&["purge"]), ..Match::default() }));
    let network = |prefix| Network { address: [10, 1, 0, 0].into(), prefix };
    assert!(takes(Match { source: vec![network(32), network(16)], ..Match::default() }));
    assert!(!takes(Match { source: vec![network(24)], ..Match::default() }));
    let mut other = (*route(0, Match::default())).clone();
    other.listeners = vec![ListenerId(1), ListenerId(2)];
    assert!(RouteTable::build(&[Arc::new(other.clone())]).find(&built.request()).is_none());
    other.listeners.push(ListenerId(0));
    assert!(RouteTable::build(&[Arc::new(other)]).find(&built.request()).is_some());
}

#[test]
fn a_route_of_many_hosts_and_paths_is_filed_by_its_hosts() {
    let names = |n: usize, stem: &str| (0..n).map(|n| format!("{stem}{n}").into()).collect::<Vec<Arc<str>>>();
    let table = table([Match { host: names(40, "h"), path: names(40, "/p"), ..Match::default() }]);
    assert_eq!(found(&table, &Built::new("GET", "h39", "/p39", &[])), Some(0));
    assert_eq!(found(&table, &Built::new("GET", "h39", "/p40", &[])), None);
}

/// The work of a lookup does not grow with the number of hosts and path prefixes.
#[test]
fn few_candidates_of_many_routes() {
    let one = |n: u32| Match {
        host: vec![format!("h{}.test", n / 10).into(), format!("*.h{}.test", n / 10).into()],
        path_prefix: vec![format!("/p{}", n % 10).into()],
        ..Match::default()
    };
    let routes: Vec<_> = (0..20_000).map(|n| route(n, one(n))).collect();
    let index = Index::build(&routes, |matcher| &matcher.host);
    let mut seen = Vec::new();
    index.candidates(b"x.h777.test", b"/p3/a/b/c/d", |list| seen.extend_from_slice(list));
    assert_eq!(seen, [7773]);
}

fn path() -> impl Strategy<Value = String> {
    "(/[abA]{0,2}){1,4}|\\*"
}

fn host() -> impl Strategy<Value = String> {
    "([ab]{1,2}\\.){0,3}[ab]"
}

fn some<T: std::fmt::Debug + Clone + 'static>(
    of: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Vec<T>> {
    prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(of, 1..4)].boxed()
}

fn any_match() -> impl Strategy<Value = Match> {
    let arc = |text: String| -> Arc<str> { text.into() };
    let name = prop_oneof![host().prop_map(arc), host().prop_map(|host| format!("*.{host}").into())];
    let paths = (
        some(path().prop_map(arc)),
        some(path().prop_map(arc)),
        some("/[ab]{0,2}(/[abA]{0,2})?|a|".prop_map(arc)),
        some("[ab/]{0,2}".prop_map(arc)),
        some("/?[ab]\\$?".boxed()),
        any::<bool>(),
    );
    let rest = (some("[ab]{1,2}".prop_map(arc)), some("GET|PUT".prop_map(arc)), some("[ab]".prop_map(arc)));
    (some(name), paths, rest).prop_map(|(host, (exact, prefix, begins, suffix, regex, ignore_case), rest)| {
        let fold = |list: Vec<Arc<str>>| -> Vec<Arc<str>> {
            let one = |text: Arc<str>| if ignore_case { text.to_ascii_lowercase().into() } else { text };
            list.into_iter().map(one).collect()
        };
        let compiled = |text: String| Pattern::new(&text, ignore_case).unwrap();
        Match {
            host,
            host_prefix: rest.0,
            path: fold(exact),
            path_prefix: fold(prefix),
            path_begins: fold(begins),
            path_suffix: fold(suffix),
            path_regex: regex.into_iter().map(compiled).collect(),
            ignore_case,
            method: rest.1,
            query: rest.2.into_iter().map(|name| FieldMatch { name, text: TextMatch::Present }).collect(),
            ..Match::default()
        }
    })
}

/// A hello of this name and these protocols, and its message.
fn hello(name: Option<&str>, protocols: &[&str]) -> (Hello, Vec<u8>) {
    let vector = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &vector(data)].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        extensions.extend(extension(0, &vector(&[&[0], &vector(name.as_bytes())[..]].concat())));
    }
    if !protocols.is_empty() {
        let list = protocols.iter().flat_map(|p| [&[u8::try_from(p.len()).unwrap()], p.as_bytes()].concat());
        extensions.extend(extension(16, &vector(&list.collect::<Vec<_>>())));
    }
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector(&extensions)].concat();
    let message = [&[1], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], &body].concat();
    let record = [&[22, 3, 1], &vector(&message)[..]].concat();
    let mut out = Vec::new();
    let read = crate::proto::client_hello::read(&record, &mut Default::default(), &mut out);
    (read.unwrap().unwrap(), out)
}

/// The table of tcp listener 1, beside http listener 0, with these matches, all for listener 1.
fn opening_table(matchers: impl IntoIterator<Item = Match>) -> RouteTable {
    let routes = (0..).zip(matchers).map(|(id, matcher)| {
        let built = Route::clone(&route(id, matcher));
        Arc::new(Route { listeners: vec![ListenerId(1)], ..built })
    });
    table_with_tcp(routes.collect())
}

fn table_with_tcp(routes: Vec<Arc<Route>>) -> RouteTable {
    let is_tcp = |id: &ListenerId| id.0 == 1;
    RouteTable::split(&routes, is_tcp)
}

fn opened(table: &RouteTable, listener: u16, hello: Option<(&Hello, &[u8])>) -> Option<u32> {
    let source = Some([10, 1, 2, 3].into());
    let opening = Opening { listener: ListenerId(listener), source, hello, available: &[] };
    table.find_opening(&opening).map(|route| route.id.0)
}

#[test]
fn openings_by_name_and_protocol() {
    let table = opening_table([
        Match { sni: texts(&["a.test"]), alpn: texts(&["h2"]), ..Match::default() },
        Match { sni: texts(&["a.test", "b.test"]), ..Match::default() },
        Match { sni: texts(&["*.c.test"]), ..Match::default() },
        Match { alpn: texts(&["imap", "pop3"]), ..Match::default() },
        Match {
            source: vec![Network { address: [10, 1, 0, 0].into(), prefix: 16 }],
            not: Some(Box::new(Match { sni: texts(&["d.test"]), ..Match::default() })),
            ..Match::default()
        },
    ]);
    assert!(table.asks_for_hello(ListenerId(1)) && !table.asks_for_hello(ListenerId(0)));
    for (name, protocols, wanted) in [
        (Some("a.test"), &["http/1.1", "h2"][..], Some(0)),
        (Some("a.test"), &["H2"], Some(1)),
        (Some("B.TEST."), &[], Some(1)),
        (Some("x.c.test"), &[], Some(2)),
        (Some("x.y.c.test"), &["imap"], Some(2)),
        (Some("c.test"), &[], Some(4)),
        (Some("d.test"), &["pop3"], Some(3)),
        (Some("d.test"), &[], None),
        (None, &["imap"], Some(3)),
        (None, &[], Some(4)),
    ] {
        let (hello, message) = hello(name, protocols);
        assert_eq!(opened(&table, 1, Some((&hello, &message))), wanted, "{name:?} {protocols:?}");
    }
    assert_eq!(opened(&table, 1, None), Some(4));
    assert_eq!(opened(&table, 2, None), None, "another listener");
}

#[test]
fn tcp_listeners_and_http_ones_do_not_share_routes() {
    let of = |listeners: &[u16], id| {
        let listeners = listeners.iter().map(|&n| ListenerId(n)).collect();
        Arc::new(Route { listeners, ..Route::clone(&route(id, Match::default())) })
    };
    let get = Built::new("GET", "a.test", "/", &[]);
    let table = table_with_tcp(vec![of(&[1], 0), of(&[], 1), of(&[0, 1], 2)]);
    assert!(!table.asks_for_hello(ListenerId(1)), "no route looks at one");
    assert_eq!((opened(&table, 1, None), found(&table, &get)), (Some(0), Some(1)));
    let table = table_with_tcp(vec![of(&[0, 1], 0), of(&[], 1)]);
    assert_eq!((opened(&table, 1, None), found(&table, &get)), (Some(0), Some(0)));
    let table = table_with_tcp(vec![of(&[], 0)]);
    assert_eq!((opened(&table, 1, None), found(&table, &get)), (None, Some(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_index_equals_a_linear_scan(
        matchers in proptest::collection::vec((any_match(), proptest::option::of(any_match())), 0..20),
        requests in proptest::collection::vec((host(), path(), "(\\?[ab]=?)?", "GET|PUT"), 1..30),
    ) {
        let with_not = |(matcher, not): (Match, Option<Match>)| Match { not: not.map(Box::new), ..matcher };
        let table = table(matchers.into_iter().map(with_not));
        for (host, path, query, method) in requests {
            let built = Built::new(&method, &host, &format!("{path}{query}"), &[]);
            let request = built.request();
            let scanned = table.requests.routes.iter().find(|route| matching::takes(route, &request));
            let indexed = table.find(&request);
            prop_assert_eq!(indexed.map(|route| route.id), scanned.map(|route| route.id), "{} {}", host, path);
        }
    }

    #[test]
    fn the_index_of_openings_equals_a_linear_scan(
        matchers in prop::collection::vec(
            (
                prop::collection::vec(prop::sample::select(vec!["a.test", "*.a.test", "b.a.test", "*.test", "c"]), 0..3),
                prop::collection::vec(prop::sample::select(vec!["h2", "imap"]), 0..2),
                prop::option::of(prop::sample::select(vec!["a.test", "*.test"])),
            ),
            0..8,
        ),
        name in prop::option::of(prop::sample::select(vec!["a.test", "b.a.test", "x.b.a.test", "test", "c", "d"])),
        protocols in prop::collection::vec(prop::sample::select(vec!["h2", "imap", "x"]), 0..3),
    ) {
        let table = opening_table(matchers.iter().map(|(sni, alpn, not)| Match {
            sni: texts(sni),
            alpn: texts(alpn),
            not: not.map(|name| Box::new(Match { sni: texts(&[name]), ..Match::default() })),
            ..Match::default()
        }));
        let (hello, message) = hello(name, &protocols);
        let opening =
            Opening { listener: ListenerId(1), source: Some([10, 1, 2, 3].into()), hello: Some((&hello, &message)), available: &[] };
        let scanned = table.openings.routes.iter().find(|route| matching::takes_opening(route, &opening));
        prop_assert_eq!(table.find_opening(&opening).map(|r| r.id), scanned.map(|r| r.id));
    }
}

/// Counts of usable endpoints decide, negated ones too, of requests and of conns of a tcp listener.
#[test]
fn routes_ask_how_many_endpoints_are_usable() {
    let available = |cluster, at_least, below| Match {
        available: Some(Available { cluster: ClusterId(cluster), at_least, below }),
        ..Match::default()
    };
    let one_down = available(2, 0, 1);
    let many = Match { not: Some(Box::new(available(0, 3, u32::MAX))), ..Match::default() };
    let matchers = [one_down, many, available(2, 2, 4)];
    let routes: Vec<_> = (0u32..).zip(matchers).map(|(id, matcher)| route(id, matcher)).collect();
    let table = RouteTable::build(&routes);
    assert_eq!(table.asks_about(), [ClusterId(0), ClusterId(2)]);
    let built = Built::new("GET", "a", "/", &[]);
    for (usable, taken) in [
        ([9, 0, 0], Some(0)),
        ([2, 0, 1], Some(1)),
        ([3, 0, 1], None),
        ([3, 0, 2], Some(2)),
        ([3, 0, 3], Some(2)),
        ([3, 0, 4], None),
    ] {
        let request = Request { available: &usable, ..built.request() };
        assert_eq!(table.find(&request).map(|route| route.id.0), taken, "{usable:?}");
        let of_tcp: Vec<_> = routes
            .iter()
            .map(|route| Arc::new(Route { listeners: vec![ListenerId(1)], ..(**route).clone() }))
            .collect();
        let table = RouteTable::split(&of_tcp, |id| *id == ListenerId(1));
        assert_eq!(table.asks_about(), [ClusterId(0), ClusterId(2)]);
        let opening = Opening { listener: ListenerId(1), source: None, hello: None, available: &usable };
        assert_eq!(table.find_opening(&opening).map(|route| route.id.0), taken, "{usable:?}");
    }
}

/// What is explained is what is found: of every route in front, each key that is given alone refuses or does not.
#[test]
fn what_a_route_is_passed_over_for_is_named() {
    let field = |name: &str| FieldMatch { name: name.into(), text: TextMatch::Present };
    let all = Match {
        host: texts(&["a.test"]),
        path_prefix: texts(&["/v1"]),
        method: texts(&["GET"]),
        header: vec![field("x")],
        query: vec![field("q")],
        not: Some(Box::new(Match { path: texts(&["/v1/not"]), ..Match::default() })),
        ..Match::default()
    };
    let table = table([all, Match::default(), Match::default()]);
    let why = |method, host, target, fields: &[(&str, &str)]| {
        let built = Built::new(method, host, target, fields);
        let passed = table.passed_over(&built.request());
        let named: Vec<_> = passed.iter().map(|(route, key)| (route.id.0, *key)).collect();
        assert_eq!(found(&table, &built), Some(u32::from(!named.is_empty())));
        named.first().map(|(_, key)| *key)
    };
    assert_eq!(why("GET", "a.test", "/v1/x?q", &[("x", "")]), None);
    assert_eq!(why("GET", "b.test", "/v1/x?q", &[("x", "")]), Some("host"));
    assert_eq!(why("GET", "a.test", "/v2?q", &[("x", "")]), Some("path_prefix"));
    assert_eq!(why("PUT", "a.test", "/v1?q", &[("x", "")]), Some("method"));
    assert_eq!(why("GET", "a.test", "/v1?q", &[]), Some("header"));
    assert_eq!(why("GET", "a.test", "/v1", &[("x", "")]), Some("query"));
    assert_eq!(why("GET", "a.test", "/v1/not?q", &[("x", "")]), Some("not"));
}
