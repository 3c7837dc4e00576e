//! A route: a match and what is done with the requests it takes.

use super::{ClusterId, ListenerId, Network, Pattern, RouteId, Statuses, SwitchId};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The routes of a snapshot, in file order, each to be found by its id too, and for a while those that are gone.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    order: Vec<Arc<Route>>,
    by_id: Vec<Option<Arc<Route>>>,
}

impl Routes {
    /// `order` is the routes as requests try them; `gone` are others, which take nothing any more and are named in the log.
    pub fn new(order: Vec<Arc<Route>>, gone: impl IntoIterator<Item = Arc<Route>>) -> Self {
        let mut by_id: Vec<Option<Arc<Route>>> = vec![None; order.len()];
        for route in gone.into_iter().chain(order.iter().cloned()) {
            let at = route.id.0 as usize;
            by_id.resize(by_id.len().max(at + 1), None);
            by_id[at] = Some(route);
        }
        Self { order, by_id }
    }
    /// The route of that id, also one that is gone.
    pub fn named(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.by_id.get(id.0 as usize)?.as_ref()
    }
    /// Whether both are the same objects in the same order.
    pub fn are(&self, others: &Self) -> bool {
        let same = |(one, other): (&Arc<Route>, &Arc<Route>)| Arc::ptr_eq(one, other);
        self.order.len() == others.order.len() && self.order.iter().zip(&others.order).all(same)
    }
    /// Every id, with what has it.
    pub fn by_id(&self) -> &[Option<Arc<Route>>] {
        &self.by_id
    }
}

/// Of which none is gone.
impl From<Vec<Arc<Route>>> for Routes {
    fn from(order: Vec<Arc<Route>>) -> Self {
        Self::new(order, [])
    }
}

impl FromIterator<Arc<Route>> for Routes {
    fn from_iter<I: IntoIterator<Item = Arc<Route>>>(routes: I) -> Self {
        routes.into_iter().collect::<Vec<_>>().into()
    }
}

/// In file order.
impl Deref for Routes {
    type Target = [Arc<Route>];
    fn deref(&self) -> &[Arc<Route>] {
        &self.order
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub id: RouteId,
    pub name: Arc<str>,
    /// Empty = every http listener. A tcp listener has those that name it.
    pub listeners: Vec<ListenerId>,
    pub matcher: Match,
    pub action: Action,
    /// What is done instead while a switch is on.
    pub maintenance: Option<Maintenance>,
    /// Instead of the listener's, for requests of this route.
    pub error_pages: ErrorPages,
}

/// A route's other face: what it answers in maintenance.
#[derive(Debug, Clone)]
pub struct Maintenance {
    pub switch: SwitchId,
    /// Whether the switch is on when the shards start.
    pub on: bool,
    /// The same route in maintenance; it has no `maintenance` of its own.
    pub instead: Arc<Route>,
}

/// Whatever the switch was when the shards started.
impl PartialEq for Maintenance {
    fn eq(&self, other: &Self) -> bool {
        self.switch == other.switch && self.instead == other.instead
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Forward; what is set overrides the cluster's timeouts.
    Forward {
        cluster: ClusterId,
        response_header: Option<Duration>,
        response_body: Option<Duration>,
        send: Option<Duration>,
        connect: Option<Duration>,
        queue: Option<Duration>,
    },
    Respond(Arc<Reply>),
    Redirect(Arc<Redirect>),
}

/// All present parts must hold; each list means any of. Empty lists and `None` do not constrain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Match {
    /// Lower case, without port and trailing dot: `app.example.com`, or `*.example.com` (one or more labels).
    pub host: Vec<Arc<str>>,
    pub host_prefix: Vec<Arc<str>>,
    /// The whole path.
    pub path: Vec<Arc<str>>,
    /// Whole segments: "/v1" takes "/v1" and "/v1/x".
    pub path_prefix: Vec<Arc<str>>,
    /// Bytes (HAProxy's path_beg).
    pub path_begins: Vec<Arc<str>>,
    pub path_suffix: Vec<Arc<str>>,
    /// Searched in the path, not anchored.
    pub path_regex: Vec<Pattern>,
    /// Path matches ignore ASCII case (control made the patterns accordingly and lowered the texts).
    pub ignore_case: bool,
    pub method: Vec<Arc<str>>,
    /// Each must hold; `host` is the request's authority.
    pub header: Vec<FieldMatch>,
    pub cookie: Vec<FieldMatch>,
    pub query: Vec<FieldMatch>,
    pub source: Vec<Network>,
    /// As `host`, of a ClientHello's name. This and `alpn` are of tcp listeners only, and there stand beside `source` and
    /// `not` alone; control sees to it.
    pub sni: Vec<Arc<str>>,
    /// Any of the protocols that a ClientHello offers; they have case.
    pub alpn: Vec<Arc<str>>,
    pub available: Option<Available>,
    /// This match, as a whole, must not hold.
    pub not: Option<Box<Self>>,
}

/// How many endpoints of a cluster its picks choose among at the moment: those of the tier in use, as HAProxy's nbsrv
/// counts them; none where only `fail_open` leaves some, or the cluster's breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    pub cluster: ClusterId,
    pub at_least: u32,
    /// Fewer than this; `u32::MAX` does not constrain.
    pub below: u32,
}

impl Available {
    pub fn holds(&self, usable: u32) -> bool {
        (self.at_least..self.below).contains(&usable)
    }
}

/// A named field, cookie or query key. Field names are lower case; cookie and query names are compared as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldMatch {
    pub name: Arc<str>,
    pub text: TextMatch,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TextMatch {
    Present,
    Absent,
    AnyOf(Vec<Arc<str>>),
    Prefix(Arc<str>),
    Regex(Pattern),
}

/// Our own answer, with variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub page: Page,
}

/// Body and fields of an answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub body: Template,
    pub form: BodyForm,
    /// Lower-case names, checked.
    pub headers: Vec<(Arc<str>, Template)>,
}

/// What a body is, as its content-type says, and so how the values of variables are written into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// Every byte as it is.
    Plain,
    Html,
    Json,
}

/// What a refusal of one of these statuses is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    pub statuses: Statuses,
    pub page: Page,
}

/// The first that has a status is used. Shared, so that an answer holds them while it is made.
pub type ErrorPages = Arc<[ErrorPage]>;

#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pub to: Template,
}

/// A text with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(Arc<str>),
    Variable(Variable),
}

/// `${remote_addr}` and its siblings. An absent value is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    RemoteAddr,
    RemotePort,
    ServerAddr,
    ServerPort,
    Host,
    Method,
    /// The normal form, without the query.
    Path,
    /// Without its "?".
    Query,
    /// Path, and "?" and query where there is one.
    PathAndQuery,
    Scheme,
    RequestId,
    Node,
    Listener,
    Route,
    Status,
    /// The refusal's word; empty where a route answers.
    Reason,
}

impl Variable {
    /// Each variable by the name a configuration uses.
    pub const NAMES: &[(&str, Self)] = &[
        ("remote_addr", Self::RemoteAddr),
        ("remote_port", Self::RemotePort),
        ("server_addr", Self::ServerAddr),
        ("server_port", Self::ServerPort),
        ("host", Self::Host),
        ("method", Self::Method),
        ("path", Self::Path),
        ("query", Self::Query),
        ("path_and_query", Self::PathAndQuery),
        ("scheme", Self::Scheme),
        ("request_id", Self::RequestId),
        ("node", Self::Node),
        ("listener", Self::Listener),
        ("route", Self::Route),
        ("status", Self::Status),
        ("reason", Self::Reason),
    ];
}
